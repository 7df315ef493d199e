"""What "always" and "this session" offer is what was seen: 200 pairs of a call that was seen and another that was not."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.approval.offers import PatternError, allows, editable, edited, meaning, offer, start
from agent.approval.policy import Answer, ApprovalRequest, Gate, Policy, Rule, always_rule
from agent.messages import ToolCall
from agent.tools.builtin.catalogue import builtin
from agent.tools.define import Tool
from tests.fixtures.generated import runs

TOOLS = {tool.name: tool for tool in builtin(root=Path("/usr"), home=Path("/usr"))}
TOOLS["run_command"].unconfined = ""


def request(name: str, arguments: dict[str, Any]) -> ApprovalRequest:
    tool, call = TOOLS[name], ToolCall(name, arguments)
    return ApprovalRequest(tool, call, Policy().decide(tool, call), always_rule(tool, call))


def covers(rule: Rule | None, name: str, arguments: dict[str, Any], *, session: bool = False) -> bool:
    """Whether with this rule a call runs unasked, as one that is kept, or as one of the session."""
    if rule is None:
        return False
    tool, call = TOOLS[name], ToolCall(name, arguments)
    decision = Policy().decide(tool, call, [rule]) if session else Policy([rule]).decide(tool, call)
    return decision.action == "allow"


# Programs that run others, read what they do from a file, or do something else with other arguments.
PAIRS = """
man ls|man -P 'touch x' ls
man ls|man -H'touch x' ls
m4 a.m4|m4 -Dx=y b.m4
m4 a.m4|echo 'syscmd(touch x)' m4
flock f ls|flock f touch x
zip a.zip b|zip a.zip b -T -TT 'touch x'
cmake .|cmake -P evil.cmake
cmake --build .|cmake -E touch x
pandoc a.md|pandoc a.md --filter ./evil
pandoc a.md|pandoc a.md --lua-filter=x
awk '{print}' a|awk 'BEGIN{system("x")}' a
gawk -f a.awk b|gawk -f c.awk b
sed s/a/b/ f|sed 1e f
sed -n p f|sed -i p f
find . -name x|find . -name x -delete
find . -name x|find . -exec x ;
xargs ls|xargs rm
env ls|env rm x
env A=1 ls|env A=2 ls
tar tf a.tar|tar xf a.tar
tar cf a.tar b|tar cf a.tar b --checkpoint-action=exec=x
rsync a b|rsync -e x a b
rsync a b|rsync a host:b
ssh host ls|ssh host rm x
ssh host|ssh -oProxyCommand=x host
vim a|vim -c '!x' a
vi a|vi b
less a|less '+!x' a
more a|more b
make test|make install
make test|make test SHELL=x
make|make -f other
python3 x.py|python3 y.py
python3 x.py|python3 -c x
python3 -m pytest|python3 -m pip install x
python3.12 x.py|python3.12 z.py
node x.js|node -e x
perl x.pl|perl -e x
ruby x.rb|ruby y.rb
php x.php|php -r x
lua x.lua|lua y.lua
docker run a|docker run b
docker ps|docker run --privileged b
podman ps|podman exec a b
watch ls|watch rm
strace ls|strace rm
ltrace ls|ltrace rm
gdb a|gdb -ex x a
nice ls|nice rm
nice -n 5 ls|nice -n 5 rm
time ls|time rm
sudo ls|sudo rm x
doas ls|doas rm x
busybox ls|busybox rm
toybox ls|toybox rm
timeout 5 ls|timeout 5 rm
timeout 5 ls|timeout 6 ls
nohup ls|nohup rm
setsid ls|setsid rm
stdbuf -oL ls|stdbuf -oL rm
chroot . ls|chroot . rm
sh x.sh|sh y.sh
sh x.sh|sh -c x
bash x.sh|bash x.sh y
bash -c ls|bash -c rm
dash x|dash y
zsh x|zsh y
eval ls|eval rm
exec ls|exec rm
command ls|command rm
npm test|npm publish
npm run a|npm run b
npx a|npx b
yarn test|yarn add x
pnpm test|pnpm add x
pip list|pip install x
pip install a|pip install b
pipx run a|pipx run b
uv run a|uv run b
uvx a|uvx b
cargo test|cargo run
cargo test|cargo test --config x
go test|go test -exec x
go run a|go run b
java A|java B
java -jar a|java -jar b
gcc a.c|gcc -wrapper x a.c
gcc a.c|gcc a.c -o b
cc a.c|cc @b
git status|git push
git status|git -c core.fsmonitor=x status
git log|git log --output=x
git log -1|git log -2
git diff|git diff --ext-diff
git commit -m x|git commit -m y
git push|git push origin
git push origin a|git push origin b
git fetch|git fetch --upload-pack=x
git fetch a|git fetch b
git clone a|git clone b
git config --get a|git config a b
git checkout a|git checkout b
git rebase a|git rebase --exec x a
git bisect run a|git bisect run b
git submodule update|git submodule foreach x
git grep x|git grep -Osh x
git branch|git branch -D x
git tag|git tag x
git stash|git stash drop
git alias|git other
hg log|hg log --config x=y
svn log|svn log --editor-cmd x
sqlite3 a.db|sqlite3 a.db .shell
psql -l|psql -c x
mysql a|mysql -e x
curl http://a|curl http://b
curl http://a|curl http://a -o x
wget http://a|wget http://b
wget http://a|wget --use-askpass=x http://a
nc a 1|nc b 1
socat a b|socat a EXEC:x
openssl version|openssl enc -in a -out b
gpg --list-keys|gpg --delete-keys x
systemctl status a|systemctl stop a
journalctl|journalctl --vacuum-size=1
crontab -l|crontab x
at now|at -f x now
kill 1|kill 2
kill 1|kill -9 1
rm a|rm b
rm a|rm -r a
rm a|rm a b
rm '*'|rm *
ls '*.txt'|ls *.txt
ls \\*|ls *
cat '[a]'|cat [a]
mv a b|mv a c
cp a b|cp a c
ln -s a b|ln -s a c
dd if=a of=b|dd if=a of=c
tee a|tee b
touch a|touch b
mkdir a|mkdir b
chmod 600 a|chmod 777 a
chown a b|chown c b
sort a|sort a -o b
sort a|sort --compress-program=x a
split a|split --filter=x a
uniq a|uniq a b
cat a|cat b
cat a|cat /etc/shadow
grep x a|grep -r x /
head a|head b
ls|ls /
ls a|ls b
ls -l|ls -lR
echo a|echo b
date|date -s x
hostname|hostname x
file a|file -C a
xxd a|xxd -r a b
base64 a|base64 b
diff a b|diff a c
rg x|rg --pre y x
fd x|fd -x y
fd x|fd -X y
jq . a|jq -f b a
yq . a|yq -i . a
tree|tree -o x
ffmpeg -i a b|ffmpeg -i a c
convert a b|convert a c
pdflatex a|pdflatex --shell-escape a
tex a|tex b
gs a|gs -dNOSAFER a
gnuplot a|gnuplot -e x
ninja|ninja -f x
meson test|meson test --wrapper x
bazel test|bazel run x
pytest|pytest -p x
pytest a|pytest b
tox|tox -c x
ansible a|ansible a -m shell
terraform plan|terraform apply
kubectl get a|kubectl delete a
helm list|helm install a
screen ls|screen rm
tmux ls|tmux new x
script x|script -c x
expect a|expect -c x
parallel ls|parallel rm
unzip -l a|unzip a
7z l a|7z x a
cpio -t|cpio -i
install a b|install a c
patch a|patch b
ed a|ed b
emacs a|emacs --eval x
nano a|nano b
apt list|apt install x
dpkg -l|dpkg -i x
pacman -Q|pacman -S x
apk info|apk add x
brew list|brew install x
./run.sh|./run.sh x
./run.sh|./other.sh
/usr/bin/git status|git status
git status|/usr/bin/git status
PATH=. ls|ls
ls|PATH=. ls
ls|ls; rm x
ls|ls && rm x
ls|ls | sh
ls|ls > x
ls|ls $x
ls|ls &
ls|lsx
ls a|ls 'a b'
ls 'a b'|ls a b
ls a b|ls 'a b'
ls|LS
"""
SEEN = [(seen, other) for line in PAIRS.strip().splitlines() for seen, _, other in [line.partition("|")]]


def test_there_are_enough_pairs() -> None:
    assert len(SEEN) >= 150


@pytest.mark.parametrize(("seen", "other"), SEEN)
def test_another_command_is_asked_for(seen: str, other: str) -> None:
    asked = request("run_command", {"command": seen})
    for rule, session in ((offer(asked), False), (asked.always, True)):
        assert not covers(rule, "run_command", {"command": other}, session=session)


SAME = [
    ("git status -s", "git  status\t-s"),
    ("git status", "'git' \"status\""), ("rm a b", "r\\m 'a' \"b\""), ("ls 'a b'", 'ls "a b"'),
    ("ls 'a b'", "ls a\\ b"), ("ls *.txt", "ls   *.txt"), ("python3 x.py", "python3 'x.py'"), ("rm -rf build", "rm -rf 'build'"),
    ("sudo ls", "sudo ls"), ("find . -name '*.py'", 'find . -name "*.py"'), ("make test", " make test "),
    ("awk '{print}' a", "awk {print} a"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "same"), SAME)
def test_the_same_command_is_covered_however_it_is_quoted(seen: str, same: str) -> None:
    rule = offer(request("run_command", {"command": seen}))
    assert covers(rule, "run_command", {"command": seen})
    assert covers(rule, "run_command", {"command": same})


def test_of_any_two_commands_neither_covers_the_other() -> None:
    r = random.Random(14)
    pool = ["ls", "git", "log", "-p", "-rf", "a", "'*'", "*", "sudo", "--output=x", "\\;", "'a b'", "b", "$x", "|", ">", "A=1"]
    for _ in range(runs(300)):
        seen, other = (" ".join(r.choices(pool, k=r.randint(1, 4))) for _ in range(2))
        asked = request("run_command", {"command": seen})
        if seen != other:
            assert not covers(offer(asked), "run_command", {"command": other}), (seen, other)
            assert not covers(asked.always, "run_command", {"command": other}, session=True), (seen, other)


@pytest.mark.parametrize(
    ("name", "seen", "other"),
    [
        ("write_file", {"path": "a", "content": "1"}, {"path": "a", "content": "2"}),
        ("write_file", {"path": "a", "content": "1"}, {"path": "b", "content": "1"}),
        ("write_file", {"path": "notes/a", "content": "1"}, {"path": "notes/b", "content": "1"}),
        ("edit_file", {"path": "a", "old": "1", "new": "2"}, {"path": "a", "old": "1", "new": "3"}),
        ("fetch_url", {"url": "https://a.org/x"}, {"url": "https://a.org/y"}),
        ("fetch_url", {"url": "https://a.org/x"}, {"url": "https://a.org/x?secret"}),
        ("fetch_url", {"url": "https://a.org/x"}, {"url": "http://a.org/x"}),
        ("fetch_url", {"url": "https://a.org/x"}, {"url": "https://a.org:8443/x"}),
        ("fetch_url", {"url": "https://a.org/"}, {"url": "https://b.a.org/"}),
    ],
)
def test_a_file_and_a_page_are_offered_as_they_were_shown(name: str, seen: dict[str, str], other: dict[str, str]) -> None:
    asked = request(name, seen)
    assert offer(asked) == asked.always
    assert covers(offer(asked), name, dict(reversed(seen.items())))
    assert not covers(offer(asked), name, other)


def test_a_tool_of_a_server_is_offered_with_its_arguments() -> None:
    from agent.messages import ToolSpec

    tool = Tool.from_spec(ToolSpec("srv__do"), lambda arguments, context: "x")
    call = ToolCall("srv__do", {"a": 1})
    rule = offer(ApprovalRequest(tool, call, Policy().decide(tool, call), always_rule(tool, call)))
    assert rule is not None
    assert Policy([rule]).decide(tool, call).action == "allow"
    assert Policy([rule]).decide(tool, ToolCall("srv__do", {"a": 2})).action == "ask"


def test_what_is_too_long_to_be_read_in_a_file_is_not_kept() -> None:
    asked = request("write_file", {"path": "a", "content": "x" * 5000})
    assert offer(asked) is None
    assert covers(asked.always, "write_file", {"path": "a", "content": "x" * 5000}, session=True)


def test_a_person_may_write_a_wider_rule() -> None:
    asked = request("write_file", {"path": "notes/a", "content": "1"})
    rule = offer(asked)
    assert rule is not None
    assert edited(rule, "notes/*", asked.tool, asked.call) == Rule("allow", "write_file", "path", "notes/*")
    assert edited(rule, "", asked.tool, asked.call) == rule


def test_a_line_for_a_shell_is_asked_for_in_each_conversation() -> None:
    line = {"command": "ls | wc -l"}
    asked = request("run_command", line)
    assert offer(asked) is None
    gate = Gate(Policy([Rule("allow", "run_command"), Rule("allow"), asked.always]), lambda request: Answer.always_yes())
    assert gate.check(TOOLS["run_command"], ToolCall("run_command", line)).asked
    assert not gate.check(TOOLS["run_command"], ToolCall("run_command", line)).asked
    assert gate.check(TOOLS["run_command"], ToolCall("run_command", {"command": "ls | wc  -l"})).asked


OFFERED = {
    "command": request("run_command", {"command": "ls a"}),
    "url": request("fetch_url", {"url": "https://a.org/x"}),
    "path": request("write_file", {"path": "notes/a", "content": "1"}),
    "none": request("remember", {"text": "x"}),
}


@pytest.mark.parametrize(
    ("kind", "pattern", "made"),
    [
        ("command", " ls ", Rule("allow", "run_command", "command", "ls")),
        ("command", " ls a\n", Rule("allow", "run_command", "command", "ls a", exact=True)),
        ("url", "a.org", Rule("allow", "fetch_url", "url", "a.org")),
        ("url", "https://a.org/x", Rule("allow", "fetch_url", "url", "https://a.org/x", exact=True)),
        ("path", "**", Rule("allow", "write_file", "path", "**")),
        ("path", "  ", OFFERED["path"].always),
        ("none", "", OFFERED["none"].always),
        ("command", "", "* would stand for everything"),
        ("command", "l\u200ds", "cannot be seen"),
        ("command", "cat", "does not cover the call above"),
        ("command", "ls | wc", "does not cover the call above"),
        ("url", "b.org", "does not cover the call above"),
        ("path", "*/b", "does not cover the call above"),
        ("none", "x", "has no pattern"),
    ],
)
def test_what_a_person_writes_becomes_a_rule_for_the_call_or_is_refused_in_words(kind: str, pattern: str, made: Any) -> None:
    asked = OFFERED[kind]
    if isinstance(made, Rule):
        assert edited(asked.always, pattern, asked.tool, asked.call) == made
        assert allows(made, asked.tool, asked.call)
    else:
        with pytest.raises(PatternError, match=re.escape(made)):
            edited(asked.always, pattern, asked.tool, asked.call)


@pytest.mark.parametrize(
    ("asked", "begun", "whole"),
    [
        (OFFERED["command"], "ls a", True),
        (OFFERED["url"], "https://a.org/x", True),
        (OFFERED["path"], "", True),
        (OFFERED["none"], "", False),
        (request("run_command", {"command": "ls 'a\u200db'"}), "ls 'a\u200db'", False),
        (request("run_command", {"command": "ls 'a\nb'"}), "ls 'a\nb'", False),
        (request("run_command", {"command": "ls "}), "ls ", False),
    ],
)
def test_a_pattern_is_changed_only_where_all_of_it_can_be_seen(asked: ApprovalRequest, begun: str, whole: bool) -> None:
    assert start(asked.always) == begun
    assert editable(asked.always, asked.tool) == whole


@pytest.mark.parametrize(
    ("name", "rule", "words"),
    [
        ("run_command", Rule("allow", "x"), "any arguments of this tool"),
        ("run_command", OFFERED["command"].always, "this very command"),
        ("run_command", Rule("allow", "x", "command", "ls"), "every command that begins so, with harmless arguments"),
        ("read_file", Rule("allow", "x", "path", "a", exact=True), "this very path"),
        ("read_file", Rule("allow", "x", "path", "a"), "paths like this: * is any name, ** any folders"),
        ("fetch_url", OFFERED["url"].always, "this very address"),
        ("fetch_url", Rule("allow", "x", "url", "a.org"), "every page of this host"),
        ("write_file", OFFERED["path"].always, "exactly this change"),
        ("remember", OFFERED["none"].always, "exactly these arguments"),
        ("remember", Rule("allow", "x", "te\x1bxt", "a*"), "te␛xt like this: * is any text"),
    ],
)
def test_what_a_rule_covers_is_said_in_words(name: str, rule: Rule, words: str) -> None:
    assert meaning(rule, TOOLS[name]) == words


def test_a_rule_that_cannot_be_applied_covers_nothing_and_is_not_offered() -> None:
    tool, call = TOOLS["remember"], ToolCall("remember", {"text": object()})
    assert not allows(Rule("allow", "remember", "text", "x"), tool, call)
    other = replace(OFFERED["command"], always=Rule("allow", "run_command", "command", "cat", exact=True))
    assert offer(other) is None


def test_a_rule_is_kept_up_to_what_a_person_reads() -> None:
    def offered(count: int) -> Rule | None:
        return offer(request("run_command", {"command": "ls " + "x" * (count - 3)}))

    assert offered(1000) is not None
    assert offered(4000) is None
