# Process 1 of a service's container: it starts what the image would have started, hands signals on, and
# ends it when the agent is gone. The agent holds an exclusive flock on a file; whoever gets a shared one
# knows that the kernel has dropped the agent's.
#
# Arguments: the file, the container's stop signal, `refuse` or `go` (what to do where nothing can wait for
# the lock), and then the image's own command. POSIX, as dash, bash and busybox have it.
lock=$1 signal=$2 without=$3
shift 3
server='' wish='' ending='' woken='' rc=''

say() { echo "kaapana-agent: $*" >&2; }

# Looks at a process: its `program` and `words`, and whether a signal is `caught` or `ignored` (proc(5)).
look() {
    caught=0 ignored=0
    words=$(tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline")
    program=${words%% *}
    program=${program##*/}
    program=${program%:}
    case $2 in
        HUP) bit=0 ;; INT) bit=1 ;; QUIT) bit=2 ;; USR1) bit=9 ;; USR2) bit=11 ;; TERM) bit=14 ;; *) bit=27 ;;
    esac
    while read -r key mask; do
        # The lower half: shells count with signs.
        case $key in
            SigCgt:) caught=$((0x${mask#????????} >> bit & 1)) ;;
            SigIgn:) ignored=$((0x${mask#????????} >> bit & 1)) ;;
        esac
    done 2>/dev/null <"/proc/$1/status"
}

# Prints the children of a process.
children() {
    for entry in /proc/[0-9]*; do
        while read -r key value; do
            [ "$key $value" != "PPid: $1" ] || echo "${entry#/proc/}"
        done 2>/dev/null <"$entry/status"
    done
}

# Tells the server to end, once it can hear it; `tenths` is how long that has been tried, `deaf` how long
# without an ear.
tell() {
    with=$wish
    if [ "$wish" = gone ]; then
        look "$server" "$signal"
        # A fast shutdown waits for no client.
        case $program in
            postgres | postmaster) with=INT ;;
            *) with=$signal ;;
        esac
    fi
    look "$server" "$with"
    case $program in
        sh | bash | dash | ash | busybox)
            # What an entry point has half made would pass for whole at the next start.
            case $words in
                *entrypoint*) [ "$tenths" -ge 900 ] || return 1 ;;
            esac
            # A shell passes nothing on, and what it leaves behind is killed with it: after a while those that
            # it waits for are told, and then it gets time to end by itself.
            if [ "$caught" = 0 ] && [ "$tenths" -lt 1000 ]; then
                [ "$tenths" -ge 50 ] || return 1
                below=$(children "$server")
                if [ -n "$below" ] && [ "$told" != "$below" ]; then
                    # shellcheck disable=SC2086 # one word a process
                    kill -s "$with" $below 2>/dev/null
                    told=$below deaf=0
                fi
                deaf=$((deaf + 1))
                if [ -n "$below" ]; then return 1; fi
                if [ -n "$told" ] && [ "$deaf" -lt 50 ]; then return 1; fi
            fi
            [ "$caught" = 1 ] || with=TERM
            ;;
        *)
            # Too young to hear it, or without an ear: what a shell starts beside itself begins so for INT
            # and QUIT.
            if [ "$caught" = 0 ] && [ "$ignored" = 1 ]; then
                deaf=$((deaf + 1))
                [ "$deaf" -ge 50 ] || return 1
                with=TERM
            fi
            ;;
    esac
    [ "$wish" != gone ] || say "the agent is gone: SIG$with ends $program"
    kill -s "$with" "$server" 2>/dev/null
    return 0
}

end() {
    woken=yes
    # Nothing was started yet.
    [ -n "$server" ] || exit 143
    # Once is enough; but who was told to wait for its clients does not wait for those of a dead agent.
    case $wish in
        '') ;;
        gone) return 0 ;;
        *) [ "$1" = gone ] || return 0 ;;
    esac
    wish=$1
    [ -z "$ending" ] || return 0
    ending=yes tenths=0 deaf=0 told=''
    until tell; do
        sleep 0.1 2>/dev/null || sleep 1
        tenths=$((tenths + 1))
    done
    ending=''
}

unwatched() {
    say "$1"
    [ "$without" = go ] || exit 97
    trap - HUP USR1 USR2 WINCH INT QUIT TERM ALRM
    shift
    exec "$@"
}

for name in HUP USR1 USR2 WINCH; do
    # shellcheck disable=SC2064 # the name of now
    trap "woken=yes; [ -z \"\$server\" ] || kill -s $name \"\$server\" 2>/dev/null" "$name"
done
for name in INT QUIT TERM "$signal"; do
    # shellcheck disable=SC2064
    trap "end $name" "$name"
done
trap 'end gone' ALRM

command -v flock >/dev/null 2>&1 ||
    unwatched 'there is no flock(1) in this image: nothing in it would notice that the agent is gone' "$@"
kill -0 $$ || unwatched 'there is no kill(1) in this image: nothing in it could end the server' "$@"
flock -n -s "$lock" true
case $? in
    1) ;;
    0)
        say 'nobody holds the lock: the agent is gone, or its state directory is not where Docker looks for it'
        exit 98
        ;;
    *) unwatched 'flock(1) of this image cannot wait for the lock of the agent' "$@" ;;
esac
# Whenever it gets to the lock: the lock of an agent that is gone does not come back.
flock -s "$lock" sh -c "kill -s ALRM $$" &
"$@" &
server=$!
while :; do
    # Returns at every signal, and once, at the end, with the server's own code.
    woken=''
    wait "$server"
    now=$?
    [ "$now" != 127 ] || [ -z "$rc" ] || break
    rc=$now
    [ -n "$woken" ] || break
done
exit "$rc"
