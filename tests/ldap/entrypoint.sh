#!/bin/sh
# Runs slapd as the dcm4chee image does: its users, places and variables, and a directory that is made when
# there is no configuration yet, and only then.
set -eu

if [ "${1:-}" = slapd ]; then
    . setenv.sh
    # A table of a billion descriptors, which some Docker hosts allow, would cost slapd gigabytes.
    ulimit -n 1024
    mkdir -p /run/openldap
    chown ldap:ldap /run/openldap
    if [ ! -f "$CONFIG_DIR/cn=config.ldif" ]; then
        chown ldap:ldap "$CONFIG_DIR" "$DATA_DIR"
        setpriv --reuid ldap --regid ldap --clear-groups make-directory
    fi
    shift
    set -- /usr/sbin/slapd -u ldap -g ldap -F "$CONFIG_DIR" -d "${LDAP_DEBUG:-none}" -h "${LDAP_URLS:-ldap:///}" "$@"
fi
exec "$@"
