#!/bin/bash
# Entry point of the lab's PostgreSQL images; to its callers it behaves like the official image's:
# same variables, same order of steps, same user. Two things differ: the image declares no volume
# (throw-away containers would leave one behind each), and `--user` needs a uid that /etc/passwd knows.
set -eu -o pipefail

say() { printf 'entrypoint: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# VAR from the environment, or from the file that VAR_FILE names, or the default.
setting() {
    local name=$1 default=${2-} file_name="$1_FILE"
    if [ -n "${!name-}" ] && [ -n "${!file_name-}" ]; then
        die "$name and $file_name are both set"
    elif [ -n "${!file_name-}" ]; then
        printf -v "$name" '%s' "$(cat "${!file_name}")"
    else
        printf -v "$name" '%s' "${!name:-$default}"
    fi
    unset "$file_name"
}

# The server of the initialisation is reached through the unix socket alone, so whoever waits for TCP
# never meets it.
start_init_server() {
    local arguments
    printf -v arguments '%q ' "$@" -c listen_addresses=
    pg_ctl --pgdata="$PGDATA" --wait --silent --options="$arguments" start
}

in_database() {
    psql --no-psqlrc --no-password --quiet -v ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$1" "${@:2}"
}

make_cluster() {
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    setting POSTGRES_HOST_AUTH_METHOD
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        die 'the database is not initialised and POSTGRES_PASSWORD is empty: set it'
    fi

    local password=()
    if [ -n "$POSTGRES_PASSWORD" ]; then
        exec {password_fd}< <(printf '%s\n' "$POSTGRES_PASSWORD")
        password=(--pwfile="/dev/fd/$password_fd")
    fi
    # Word splitting is wanted: the variable holds options.
    # shellcheck disable=SC2086
    initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" "${password[@]}" $POSTGRES_INITDB_ARGS
    [ -z "${password_fd-}" ] || exec {password_fd}<&-

    local method=$POSTGRES_HOST_AUTH_METHOD
    [ -n "$method" ] || method=$(postgres -C password_encryption -D "$PGDATA")
    # Releases before 14 call md5 "on" as well.
    [ "$method" != on ] || method=md5
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

    start_init_server "$@"
    if [ "$POSTGRES_DB" != postgres ]; then
        in_database postgres -v "name=$POSTGRES_DB" <<<'create database :"name";'
    fi
    export PGHOST PGPASSWORD POSTGRES_USER POSTGRES_DB
    PGHOST='' PGPASSWORD=$POSTGRES_PASSWORD
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) say "run $file"; if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
            *.sql) say "run $file"; in_database "$POSTGRES_DB" --file="$file" ;;
            *.sql.gz) say "run $file"; gunzip -c "$file" | in_database "$POSTGRES_DB" ;;
            '/docker-entrypoint-initdb.d/*') ;;
            *) say "ignore $file" ;;
        esac
    done
    unset PGHOST PGPASSWORD
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait --silent stop
    say 'initialised, starting the server'
}

case ${1-} in
    -*) set -- postgres "$@" ;;
esac
[ "${1-}" = postgres ] || exec "$@"

: "${PGDATA:=/var/lib/postgresql/data}"
export PGDATA
mkdir -p "$PGDATA" /var/run/postgresql || true
if [ "$(id -u)" = 0 ]; then
    chmod 0700 "$PGDATA"
    chmod 0775 /var/run/postgresql
    find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres:postgres '{}' +
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
chmod 0700 "$PGDATA" 2>/dev/null || true

if [ -s "$PGDATA/PG_VERSION" ]; then
    say 'the data directory holds a database, nothing to initialise'
else
    make_cluster "${@:2}"
fi
exec "$@"
