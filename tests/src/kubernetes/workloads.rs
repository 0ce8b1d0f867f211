//! What Kaapana 0.3 runs that the last third of the guide is about.

use std::path::Path;

use super::{Container, Workload, image};
use crate::error::LabError;
use crate::images::{SLAPD_CONFIG, SLAPD_DATA, new_slapd};

/// slapd as Kaapana's pod has it, on directories of the host where they are given.
///
/// # Errors
/// The image cannot be built.
pub fn ldap(directories: Option<(&Path, &Path)>, password: &str) -> Result<Workload, LabError> {
    let mut options: Vec<String> = Vec::new();
    for variable in [
        format!("LDAP_ROOTPASS={password}"),
        format!("LDAP_CONFIGPASS={password}"),
        "ARCHIVE_DEVICE_NAME=kaapana".to_owned(),
        "AE_TITLE=KAAPANA".to_owned(),
    ] {
        options.extend(["--env".to_owned(), variable]);
    }
    if let Some((data, config)) = directories {
        for (source, target) in [(data, SLAPD_DATA), (config, SLAPD_CONFIG)] {
            let mount = format!("type=bind,source={},target={target}", source.display());
            options.extend(["--mount".to_owned(), mount]);
        }
    }
    let probe = [
        "ldapsearch",
        "-x",
        "-H",
        "ldap://127.0.0.1",
        "-s",
        "base",
        "-b",
        "",
    ];
    Ok(Workload {
        name: "ldap".into(),
        labels: vec![("app-name".into(), "ldap".into())],
        containers: vec![Container {
            name: "ldap-container".into(),
            image: new_slapd()?,
            options,
            command: Vec::new(),
            probe: probe.map(str::to_owned).to_vec(),
        }],
        replicas: 1,
    })
}

/// The archive's pod: as in Kaapana 0.3 its first container is not the archive.
///
/// # Errors
/// The image cannot be built.
pub fn archive() -> Result<Workload, LabError> {
    let image = image()?;
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    Ok(Workload {
        name: "dcm4chee".into(),
        labels: vec![("app-name".into(), "dcm4chee".into())],
        containers: vec![
            Container {
                name: "dcm4chee-nginx".into(),
                image: image.clone(),
                command: words("busybox httpd -f -p 8081 -h /www"),
                ..Container::default()
            },
            Container {
                name: "dcm4chee-container".into(),
                image,
                command: words("busybox httpd -f -p 8080 -h /www"),
                probe: words(
                    "busybox wget -q -O /dev/null http://127.0.0.1:8080/dcm4chee-arc/aets",
                ),
                ..Container::default()
            },
        ],
        replicas: 1,
    })
}
