//! The slapd images of a site: `old` for Kaapana 0.2, `new` for Kaapana 0.3.
//!
//! Places, users, variables and scripts are those of the dcm4chee image, with its traps: `update-data`
//! ends with 0 whatever happened, stops at the first record that is there already, and goes on with `-c`.

use super::debian::{DebianImage, ImageFile};
use crate::directory;
use crate::error::LabError;

/// uid and gid of slapd in these images.
pub const SLAPD_UID: u32 = 1021;
/// Where they keep the directory's data.
pub const SLAPD_DATA: &str = "/var/lib/openldap/openldap-data";
/// Where they keep its configuration.
pub const SLAPD_CONFIG: &str = "/etc/openldap/slapd.d";

const SCRIPTS: [(&str, &str); 9] = [
    ("setenv.sh", include_str!("../../ldap/bin/setenv.sh")),
    (
        "make-directory",
        include_str!("../../ldap/bin/make-directory"),
    ),
    ("sed-config", include_str!("../../ldap/bin/sed-config")),
    (
        "update-schema",
        include_str!("../../ldap/bin/update-schema"),
    ),
    ("update-comp", include_str!("../../ldap/bin/update-comp")),
    ("update-data", include_str!("../../ldap/bin/update-data")),
    ("init-role", include_str!("../../ldap/bin/init-role")),
    (
        "assign-role-to-user",
        include_str!("../../ldap/bin/assign-role-to-user"),
    ),
    (
        "unassign-role-from-user",
        include_str!("../../ldap/bin/unassign-role-from-user"),
    ),
];

const SCHEMAS: [(&str, &str); 4] = [
    ("dicom.ldif", include_str!("../../ldap/schema/dicom.ldif")),
    (
        "dicom-modify.ldif",
        include_str!("../../ldap/schema/dicom-modify.ldif"),
    ),
    (
        "dcm4chee-archive.ldif",
        include_str!("../../ldap/schema/dcm4chee-archive.ldif"),
    ),
    (
        "dcm4chee-archive-modify.ldif",
        include_str!("../../ldap/schema/dcm4chee-archive-modify.ldif"),
    ),
];

/// Returns the slapd image of Kaapana 0.2 (slapd 2.4), built where it is missing.
///
/// # Errors
/// As [`DebianImage::ensure`].
pub fn old_slapd() -> Result<String, LabError> {
    image("0.2", "bullseye").ensure()
}

/// Returns the slapd image of Kaapana 0.3 (slapd 2.6), built where it is missing.
///
/// # Errors
/// As [`DebianImage::ensure`].
pub fn new_slapd() -> Result<String, LabError> {
    image("0.3", "trixie").ensure()
}

fn image(version: &str, suite: &str) -> DebianImage {
    let file = |path: String, mode: u32, content: &[u8]| ImageFile {
        path,
        mode,
        content: content.to_vec(),
    };
    let mut files = vec![
        file(
            "/docker-entrypoint.sh".to_owned(),
            0o755,
            include_bytes!("../../ldap/entrypoint.sh"),
        ),
        file(
            "/etc/openldap/data/directory.ldif".to_owned(),
            0o644,
            directory::initial().as_bytes(),
        ),
        file(
            "/etc/openldap/data/vendor-data-orig.zip".to_owned(),
            0o644,
            &directory::vendor_data(),
        ),
    ];
    for (name, text) in SCRIPTS {
        files.push(file(format!("/usr/bin/{name}"), 0o755, text.as_bytes()));
    }
    for (name, text) in SCHEMAS {
        let path = format!("/etc/openldap/schema/{name}");
        files.push(file(path, 0o644, text.as_bytes()));
    }
    for (path, text) in directory::updates() {
        let path = format!("/etc/openldap/data/{path}");
        files.push(file(path, 0o644, text.as_bytes()));
    }
    DebianImage {
        repository: "kaapana-lab/slapd".to_owned(),
        version: version.to_owned(),
        suite: suite.to_owned(),
        before: format!(
            "groupadd --gid {SLAPD_UID} ldap\n\
             useradd --uid {SLAPD_UID} --gid ldap --home-dir /var/lib/openldap --shell /usr/sbin/nologin ldap\n\
             echo 'slapd slapd/no_configuration boolean true' | debconf-set-selections"
        ),
        packages: vec!["slapd".to_owned(), "ldap-utils".to_owned()],
        after: format!(
            "install -d -o ldap -g ldap -m 0755 /var/lib/openldap {SLAPD_DATA}\n\
             install -d -o ldap -g ldap -m 0755 {SLAPD_CONFIG}\n\
             rm -rf /var/lib/ldap"
        ),
        trim: [
            "/usr/share/perl",
            "/usr/lib/*/perl",
            "/usr/lib/*/libperl.so*",
        ]
        .map(str::to_owned)
        .to_vec(),
        files,
        config: vec![
            "ENV LDAP_BASE_DN=dc=dcm4che,dc=org".to_owned(),
            "ENTRYPOINT [\"/docker-entrypoint.sh\"]".to_owned(),
            "CMD [\"slapd\"]".to_owned(),
            "EXPOSE 389".to_owned(),
        ],
        stop_signal: None,
    }
}
