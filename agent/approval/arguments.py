"""Which arguments of a program a rule may let pass that does not spell them: those that neither write, nor run another program,
nor change what is read as configuration.

Options are named here that are harmless; whatever is not named is not (an abbreviation of a long option, too).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.approval.programs import CHANGERS, INTERPRETERS, READERS, SHELLS, WRAPPERS, base_name, family

_STRANGE_OPERAND = re.compile(r"[-+@:].*|.*=.*", re.DOTALL)  # an option, a command or a variable for some program


@dataclass(frozen=True, slots=True)
class Harmless:
    """Arguments of a program that are.

    Attributes:
        flags: short options without a value; they may stand together.
        valued: short options whose value is the rest of the word, or the next one.
        words: long options, without their value.
        operands: how many arguments there may be that are no options.
    """

    flags: str = ""
    valued: str = ""
    words: frozenset[str] = frozenset()
    operands: int = 1 << 30

    def option(self, word: str) -> bool:
        """Whether an argument that begins with a dash is a harmless option."""
        if word in ("-", "--") or word in self.words:
            return True
        if word.startswith("--"):
            return word.partition("=")[0] in self.words
        for char in word[1:]:
            if char in self.valued:
                return True
            if char not in self.flags:
                return False
        return True


def _harmless(flags: str = "", valued: str = "", words: str = "", operands: int = 1 << 30) -> Harmless:
    named = frozenset(word if word.startswith("-") else f"--{word}" for word in words.split())
    return Harmless(flags + "0123456789", valued, named, operands)


_DIFF = (
    "abbrev binary cached check color color-words compact-summary cumulative diff-algorithm diff-filter dirstat exit-code "
    "find-copies find-renames full-index function-context histogram ignore-all-space ignore-blank-lines ignore-space-at-eol "
    "ignore-space-change inter-hunk-context merge-base minimal name-only name-status no-color no-ext-diff no-patch no-prefix "
    "no-renames no-textconv numstat patch patch-with-stat patience pickaxe-all quiet raw relative shortstat staged stat summary "
    "text unified word-diff word-diff-regex"
)
_REVISIONS = (
    "abbrev-commit after all all-match ancestry-path author author-date-order basic-regexp before branches cherry "
    "cherry-mark cherry-pick children committer count date date-order decorate dense encoding exclude extended-regexp "
    "first-parent fixed-strings follow format full-history glob graph grep invert-grep left-right max-count max-parents "
    "merges min-parents no-abbrev-commit no-decorate no-merges no-notes no-walk notes oneline parents perl-regexp pretty "
    "regexp-ignore-case relative-date remotes reverse simplify-merges since skip source sparse tags topo-order until walk-reflogs"
)
_LOG = _harmless("bcgimprstuwzREPWF", "nGLSUMCX", f"{_DIFF} {_REVISIONS}")
_GIT_LISTS = "abbrev column contains exclude-standard format ignore-case list merged no-column no-contains no-merged sort"
_GIT = {
    "log": _LOG, "show": _LOG, "diff": _LOG, "whatchanged": _LOG, "rev-list": _LOG, "reflog": replace(_LOG, operands=0),
    "shortlog": _harmless("cnse", "w", f"{_REVISIONS} numbered summary email group"),
    "status": _harmless("bsuvz", "", "ahead-behind branch column find-renames ignore-submodules ignored long no-ahead-behind "
                        "no-column no-renames porcelain renames short show-stash untracked-files verbose"),
    "blame": _harmless("bcefklnpstw", "CLMS", "abbrev color-by-age color-lines date incremental line-porcelain porcelain "
                       "progress root score-debug show-email show-name show-number show-stats since"),
    "describe": _harmless("", "", "abbrev all always broken candidates contains debug dirty exact-match exclude first-parent "
                          "long match tags"),
    "ls-files": _harmless("cdfikmostuvz", "xX", "abbrev cached debug deleted deduplicate directory eol error-unmatch exclude "
                          "exclude-standard full-name ignored killed modified no-empty-directory others stage unmerged"),
    "ls-tree": _harmless("dlrtz", "", "abbrev format full-name full-tree long name-only name-status object-only"),
    "rev-parse": _harmless("q", "", "abbrev abbrev-ref absolute-git-dir all branches git-common-dir git-dir is-bare-repository "
                           "is-inside-git-dir is-inside-work-tree is-shallow-repository local-env-vars not remotes short "
                           "show-cdup show-prefix show-toplevel symbolic symbolic-full-name tags verify"),
    "cat-file": _harmless("epst", "", "allow-unknown-type"),
    "grep": _harmless("EFGHILPachilnopqrsvwzW", "ABCefm", "after-context all-match and basic-regexp before-context break cached "
                      "color column context count exclude-standard extended-regexp files-with-matches files-without-match "
                      "fixed-strings full-name function-context heading ignore-case invert-match line-number max-count max-depth "
                      "name-only no-color no-index not null only-matching or perl-regexp quiet recursive show-function text "
                      "untracked word-regexp"),
    "name-rev": _harmless("", "", "all always exclude name-only no-undefined refs tags"),
    "merge-base": _harmless("a", "", "all fork-point independent is-ancestor octopus"),
    "for-each-ref": _harmless("", "", f"{_GIT_LISTS} count"),
    "show-ref": _harmless("dhqs", "", "abbrev dereference exclude-existing exists hash head heads quiet tags verify"),
    "count-objects": _harmless("vH", "", "human-readable verbose", 0),
    "check-ignore": _harmless("nqvz", "", "no-index non-matching quiet verbose"),
    "branch": _harmless("arv", "", f"{_GIT_LISTS} all remotes show-current verbose", 0),
    "tag": _harmless("li", "n", _GIT_LISTS, 0),
    "remote": _harmless("v", "", "verbose", 0),
    "stash": _harmless(operands=0),
    "add": _harmless("Anuv", "", "all dry-run intent-to-add no-all refresh update verbose"),
    "commit": _harmless("aqsv", "m", "all allow-empty author date dry-run message no-edit quiet signoff verbose"),
    "push": _harmless("nqv", "", "dry-run quiet verbose", 0),
    "fetch": _harmless("nqv", "", "dry-run quiet verbose", 0),
}  # fmt: skip
_GIT_GLOBALS = _harmless("P", "", "no-optional-locks no-pager no-replace-objects")
_GIT_VALUED = ("-C", "-c", "--config-env", "--git-dir", "--namespace", "--work-tree", "--exec-path", "--super-prefix")
_PROGRAMS = {
    "base64": _harmless("di", "w", "decode ignore-garbage wrap"),
    "date": _harmless("Ru", "dr", "date iso-8601 reference rfc-3339 rfc-email utc universal", 0),
    "diff": _harmless("abBdeEiHNnpqrstTuwyZ", "CFIUWxX", "brief color context expand-tabs ignore-all-space ignore-blank-lines "
                      "ignore-case ignore-space-change ignore-tab-expansion ignore-trailing-space left-column minimal new-file "
                      "no-dereference normal recursive report-identical-files show-c-function side-by-side speed-large-files "
                      "strip-trailing-cr suppress-common-lines text unified width"),
    "file": _harmless("0bhiklLnNprs", "F", "brief dereference keep-going mime mime-encoding mime-type no-dereference raw"),
    "find": _harmless("HLP", "", "-amin -and -atime -cmin -cnewer -ctime -daystart -depth -empty -executable -false -fstype "
                      "-gid -group -ilname -iname -inum -ipath -iregex -iwholename -links -lname -ls -maxdepth -mindepth -mmin "
                      "-mount -mtime -name -newer -nogroup -noleaf -not -nouser -or -path -perm -print -print0 -printf -prune "
                      "-quit -readable -regex -regextype -samefile -size -true -type -uid -user -wholename -writable -xdev "
                      "-xtype -a -o"),
    "gzip": _harmless("dfklnqrtv", "", "best decompress fast keep list quiet test verbose"),
    "hostname": _harmless("AdfiIs", "", "all-fqdns all-ip-addresses domain fqdn ip-address short", 0),
    "rg": _harmless("abcFHhiILlNnopPqSsUuvwx.0", "ABCEMgjmrtTe", "after-context before-context color colors column context count "
                    "count-matches files files-with-matches files-without-match fixed-strings follow glob heading hidden "
                    "ignore-case invert-match json line-number line-regexp max-columns max-count max-depth multiline no-config "
                    "no-filename no-heading no-ignore no-line-number only-matching pcre2 quiet regexp replace smart-case sort "
                    "sortr stats text trim type type-list type-not unrestricted vimgrep with-filename word-regexp"),
    "sort": _harmless("bcCdfghiMmnrRsuVz", "kt", "check debug dictionary-order field-separator general-numeric-sort "
                      "human-numeric-sort ignore-case ignore-leading-blanks ignore-nonprinting key merge month-sort numeric-sort "
                      "random-sort reverse stable unique version-sort zero-terminated"),
    "tree": _harmless("aACdDfFghilnNpqrsStuUvx", "ILP", "dirsfirst du filelimit gitignore inodes matchdirs noreport prune"),
    "uniq": _harmless("cdDiuz", "fsw", "all-repeated check-chars count group ignore-case repeated skip-chars skip-fields unique "
                      "zero-terminated", 1),
    "xxd": _harmless("abeiprsu", "cglos", "", 1),
}  # fmt: skip
_OPERANDS = Harmless()


def harmless(argv: Sequence[str], free: Sequence[int]) -> bool:
    """Whether the arguments ``free`` of a command, which a rule did not spell, are known to be harmless."""
    folder, _, name = argv[0].rpartition("/")
    if folder not in ("", "/bin", "/usr/bin"):
        return not free  # a program of the project may have any name
    if name in READERS:
        return True
    if name == "git":
        return _git(argv, free)
    known = _PROGRAMS.get(name) or (_OPERANDS if name in CHANGERS else None)
    return not free or (known is not None and _all(known, argv, free))


def git_runs_nothing(argv: Sequence[str]) -> bool:
    """Whether a git command is one whose arguments name nothing that is run."""
    return _git(argv, range(1, len(argv)))


def may_vary(argv: Sequence[str], guessed: Sequence[int]) -> bool:
    """Whether the words ``guessed`` of a command, for which a rule has wildcards, are operands that name nothing to be run."""
    name = base_name(argv[0])
    if name == "git" or name in WRAPPERS or name in SHELLS:
        return False
    if family(name) in INTERPRETERS and (1 in guessed or argv[1].startswith("-")):
        return False
    return not any(_STRANGE_OPERAND.fullmatch(argv[i]) for i in guessed)


def _all(known: Harmless, argv: Sequence[str], free: Sequence[int]) -> bool:
    end = argv.index("--") if "--" in argv else len(argv)
    counted = range(1, len(argv)) if known.operands == 1 else free  # of a second one, whoever spelled the first, it is written
    operands = [argv[i] for i in counted if i > end or argv[i] == "-" or not argv[i].startswith("-")]
    wild = sum(any(sign in word for sign in "*?[") for word in operands)  # which may stand for several
    options = [argv[i] for i in free if argv[i].startswith("-")]
    return len(operands) + wild <= known.operands and all(map(known.option, options))


def _git(argv: Sequence[str], free: Sequence[int]) -> bool:
    if not free:
        return True
    at, options = 1, []
    while at < len(argv) and argv[at].startswith("-"):
        options.append(at)
        at += 2 if argv[at] in _GIT_VALUED else 1
    before = [i for i in free if i < at]
    known = _GIT.get(argv[at]) if at < len(argv) else None
    if known is None or not all(i in options and _GIT_GLOBALS.option(argv[i]) for i in before):
        return False
    return _all(known, argv, [i for i in free if i > at])
