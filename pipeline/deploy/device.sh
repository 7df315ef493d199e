# What `sprig deploy` runs on a device: sh -c "$(this file)" sprig MARK STEP ARGUMENT...
# It needs a POSIX shell, cat, ls, mkdir, mv, printf, rm, rmdir, sha256sum and sleep: any busybox, toybox or coreutils has them.
# Every line of an answer begins with MARK, so that nothing that a login script prints can be taken for one.
set -fu
LC_ALL=C
export LC_ALL
mark=$1 step=$2
shift 2

say() { printf '%s %s\n' "$mark" "$*"; }
size() { # of a file; wc -c would read all of it
  file=$(ls -dln "$1") && set -- $file && printf '%s' "$5"
}
digest() { sha256sum <"$1" | { read -r sum _ && printf '%s' "$sum"; }; }
mine() { # whether the lock is still that of this run
  { read -r owner <"$1/lock/owner"; } 2>/dev/null && [ "$owner" = "$mark" ] || {
    say lost
    exit 3
  }
}
to_disk() { sync "$1" 2>/dev/null || sync 2>/dev/null || :; }

# take FOLDER SECONDS: one run at a time works in a folder. Its holder writes a beat every second, and the part; who has written
# neither for so many seconds is gone: its process died, its machine, or the network between.
take() {
  waited=0
  until mkdir "$1/lock" 2>/dev/null; do
    [ -d "$1/lock" ] || mkdir "$1/lock" || return
    [ "$waited" -gt 0 ] || : >"$1/lock/seen" || return
    for file in "$1/lock/beat" "$1/$name"; do
      if [ "$file" -nt "$1/lock/seen" ]; then
        say busy
        exit 3
      fi
    done
    if [ "$waited" -ge "$2" ]; then
      rm -rf "$1/lock"
      waited=0
      continue
    fi
    waited=$((waited + 1))
    sleep 1
  done
  printf '%s\n' "$mark" >"$1/lock/owner"
}
let_go() {
  if { read -r owner <"$1/lock/owner"; } 2>/dev/null && [ "$owner" = "$mark" ]; then rm -rf "$1/lock"; fi
  rmdir "$1" 2>/dev/null # only when no part lies there
}

find_sprig() {
  for program in "$1/venv/bin/sprig" "$(command -v sprig)" "$HOME/.local/bin/sprig"; do
    if [ -n "$program" ] && [ -x "$program" ]; then
      say sprig "$program"
      return
    fi
  done
}

case $step in
hold) # NAME SECONDS: tell how things are, and hold the lock until standard input ends
  name=$1
  for tool in cat ls mkdir mv printf rm rmdir sha256sum sleep; do
    command -v "$tool" >/dev/null 2>&1 || {
      say lacks "$tool"
      exit 3
    }
  done
  home=${SPRIG_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/sprig}
  work=$home/models/.$name.deploy
  mkdir -p "$work" && take "$work" "$2" || exit 3
  trap 'let_go "$work"' EXIT
  trap 'exit 3' HUP INT PIPE TERM
  say home "$home"
  df -Pk "$work" 2>/dev/null | { read -r _ && read -r _ _ _ free _ && say free "$free"; }
  find_sprig "$home"
  say ready
  while read -r _; do : >"$work/lock/beat"; done
  ;;
look) # FOLDER NAME PLACE SIZE: what is there of it
  if [ -f "$3" ]; then
    say old
    [ "$(size "$3")" != "$4" ] || say same "$(digest "$3")"
  fi
  if [ -f "$1/$2" ]; then say part "$(size "$1/$2")" "$(digest "$1/$2")"; fi
  ;;
anew) # FOLDER NAME: write standard input into the part
  mine "$1"
  cat >"$1/$2" || exit 3
  ;;
append) # FOLDER NAME: write standard input behind the part
  mine "$1"
  cat >>"$1/$2" || exit 3
  ;;
hash) # FOLDER NAME
  to_disk "$1/$2"
  say hash "$(size "$1/$2")" "$(digest "$1/$2")"
  ;;
drop) # FOLDER NAME
  mine "$1"
  rm -f "$1/$2"
  ;;
try) # FOLDER SPRIG FILE QUESTION: load it and let it answer, with no tool, and without the settings of whoever lives there
  : >"$1/lock/settings.toml" || exit 3
  exec 3<&0
  "$2" ask --json --settings "$1/lock/settings.toml" --tool none --temperature 0 --max-tokens 32 -m "$3" -- "$4" </dev/null 3<&- &
  asked=$!
  { cat <&3 && kill "$asked"; } >/dev/null 2>&1 & # standard input ends with the connection: nobody waits for it any more
  status=0
  wait "$asked" || status=$?
  printf '\n'
  say status "$status"
  ;;
switch) # FOLDER NAME PLACE
  mine "$1"
  mv -f "$1/$2" "$3" || exit 3
  to_disk "$3"
  ;;
python) # SCRIPT: what Python there is
  command -v python3 >/dev/null && say python "$(python3 -c "$1")"
  ;;
wheels) # FOLDER: which files lie there, by their SHA-256
  mkdir -p "$1" || exit 3
  set +f
  for file in "$1"/*.whl; do
    [ ! -f "$file" ] || say "$(digest "$file")" "${file##*/}"
  done
  ;;
put) # FOLDER NAME PLACE SHA256: a small file, whole or not at all
  mine "$1"
  cat >"$1/$2" || exit 3
  to_disk "$1/$2"
  if [ "$(digest "$1/$2")" != "$4" ]; then
    rm -f "$1/$2"
    echo "$2 did not arrive as it was sent" >&2
    exit 3
  fi
  mv -f "$1/$2" "$3" || exit 3
  ;;
install) # HOME, then "again" if Sprig's own wheel is new, then what pip is to install
  venv=$1/venv again=$2 fresh=
  if [ ! -x "$venv/bin/python" ]; then
    fresh=yes
    python3 -m venv "$venv" >&2 || { rm -rf "$venv" && exit 3; }
  fi
  pip() { "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-index --find-links "$1/wheels" "$2" $3 >&2; }
  # A wheel of the same version that is another one is not taken by pip itself.
  if pip "$1" "$3" "" && { [ -z "$again" ] || pip "$1" sprig-llm "--no-deps --force-reinstall"; }; then
    say version "$("$venv/bin/sprig" --version)"
  else
    [ -z "$fresh" ] || rm -rf "$venv"
    exit 3
  fi
  if [ ! -e "$HOME/.local/bin/sprig" ]; then
    { mkdir -p "$HOME/.local/bin" && ln -s "$venv/bin/sprig" "$HOME/.local/bin/sprig"; } 2>/dev/null
  fi
  ;;
about) # SPRIG SCRIPT: what the Python of a sprig command says to a script
  read -r python <"$1" || exit 3
  case $python in
  '#!'*python*) python=${python#'#!'} ;;
  *) python=${1%/*}/python ;; # the path was too long for a first line
  esac
  say about "$("$python" -P -c "$2")"
  ;;
service) # UNIT SECONDS: standard input becomes a unit of systemd and is started; what was there comes back when it does not run
  as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
  command -v systemctl >/dev/null || {
    say none
    say done
    exit 0
  }
  as_root true 2>/dev/null || {
    say unprivileged
    say done
    exit 0
  }
  name=${1##*/}
  as_root sh -c 'cat >"$1.new"' sh "$1" || exit 3
  if [ -f "$1" ]; then as_root mv -f "$1" "$1.old"; fi
  as_root mv -f "$1.new" "$1"
  run=
  if as_root systemctl daemon-reload && as_root systemctl enable -q "$name" && as_root systemctl restart "$name"; then
    run=$(systemctl show -p InvocationID --value "$name")
    left=$2
    while [ "$left" -gt 0 ] && systemctl is-active -q "$name"; do
      told=$(as_root journalctl -q -o cat "_SYSTEMD_INVOCATION_ID=$run" 2>/dev/null)
      case $told in
      *'Open http'*)
        as_root rm -f "$1.old"
        say running
        say done
        exit 0
        ;;
      esac
      left=$((left - 1))
      sleep 1
    done
  fi
  [ -z "$run" ] || as_root journalctl -q -o cat -n 1 "_SYSTEMD_INVOCATION_ID=$run" >&2
  if [ -f "$1.old" ]; then
    as_root mv -f "$1.old" "$1" && as_root systemctl daemon-reload && as_root systemctl restart "$name" 2>/dev/null
  else
    as_root systemctl disable -q --now "$name" 2>/dev/null
    as_root rm -f "$1" && as_root systemctl daemon-reload 2>/dev/null
  fi
  exit 3
  ;;
*) exit 3 ;;
esac
say done
