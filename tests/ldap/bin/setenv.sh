# Sourced by the other scripts: names and passwords, with the image's defaults.
LDAP_ROOTPASS=${LDAP_ROOTPASS:-secret}
LDAP_CONFIGPASS=${LDAP_CONFIGPASS:-secret}
LDAP_BASE_DN=${LDAP_BASE_DN:-dc=dcm4che,dc=org}
ARCHIVE_DEVICE_NAME=${ARCHIVE_DEVICE_NAME:-dcm4chee-arc}
AE_TITLE=${AE_TITLE:-DCM4CHEE}
LDAP_CLIENT=${LDAP_CLIENT:-ldap://127.0.0.1}
CONFIG_DIR=/etc/openldap/slapd.d
DATA_DIR=/var/lib/openldap/openldap-data
export LDAP_ROOTPASS LDAP_CONFIGPASS LDAP_BASE_DN ARCHIVE_DEVICE_NAME AE_TITLE CONFIG_DIR DATA_DIR

# The clients take passwords from a file that nobody else reads, never from a command line.
as_root() { tool=$1; shift; with_password "$LDAP_ROOTPASS" "$tool" -x -D "cn=admin,$LDAP_BASE_DN" "$@"; }
as_config() { tool=$1; shift; with_password "$LDAP_CONFIGPASS" "$tool" -x -D cn=admin,cn=config "$@"; }
with_password() {
    password_file=$(mktemp)
    printf %s "$1" > "$password_file"
    shift
    status=0
    "$@" -H "$LDAP_CLIENT" -y "$password_file" || status=$?
    rm -f "$password_file"
    return $status
}
