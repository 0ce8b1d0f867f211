//! The LDAP directory of a site: what a 5.26 one holds, and the changes that lead it to 5.32.
//!
//! Entries are named as dcm4chee names them, because playbooks name them too; all values are ours. The
//! changes are of the same kinds, and some 300 records: entries added, removed and renamed, values
//! added, replaced and taken away, values in base64, from a file, and over several lines.

use std::fmt::Write;

/// Suffix of the directory, as the image ships it.
pub const BASE: &str = "dc=dcm4che,dc=org";
/// The archive's device, as the image ships it.
pub const DEVICE: &str =
    "dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org";
/// Versions whose changes the image brings, in order. The migration guide leaves out two.
pub const VERSIONS: [&str; 10] = [
    "5.26.1", "5.28.0", "5.29.0", "5.29.1", "5.29.2", "5.30.0", "5.31.0", "5.31.1", "5.31.2",
    "5.32.0",
];

const ROOTS: [(&str, &str); 3] = [
    ("", "dicomConfigurationRoot"),
    ("cn=Devices,", "dicomDevicesRoot"),
    (
        "cn=Unique AE Titles Registry,",
        "dicomUniqueAETitlesRegistryRoot",
    ),
];
/// Application entities of the archive that send and receive; `WORKLIST` comes with 5.29.1.
const AES: [&str; 3] = ["DCM4CHEE", "AS_RECEIVED", "IOCM_REGULAR_USE"];
const KINDS: [&str; 10] = ["CT", "MR", "NM", "PET", "RT", "US", "XA", "CR", "DX", "MG"];
const FORMS: [&str; 4] = ["Image", "Enhanced Image", "Report", "Presentation State"];
const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// "Röntgen" and "Röntgenarchiv der Häuser", which LDIF writes in base64.
const ROENTGEN: &str = "UsO2bnRnZW4=";
const ARCHIVE: &str = "UsO2bnRnZW5hcmNoaXYgZGVyIEjDpHVzZXI=";
/// The transfer syntaxes that 5.31.2 brings.
const NEW_SYNTAXES: [&str; 3] = [
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
];

/// Binary data of the device: not UTF-8, and the same for every version of the image.
#[must_use]
pub fn vendor_data() -> Vec<u8> {
    (0..1500_u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Returns the directory that an image makes when it has none: 5.26, with names still the image's.
#[must_use]
pub fn initial() -> String {
    let mut text = format!(
        "dn: {BASE}\nobjectClass: top\nobjectClass: dcObject\nobjectClass: organization\no: a hospital\ndc: dcm4che\n\n"
    );
    for (rdn, class) in ROOTS {
        let dn = format!("{rdn}cn=DICOM Configuration,{BASE}");
        let cn = dn.split(['=', ',']).nth(1).unwrap_or_default();
        let _ = writeln!(text, "dn: {dn}\nobjectClass: {class}\ncn: {cn}\n");
    }
    let _ = writeln!(
        text,
        "dn: {DEVICE}\nobjectClass: dicomDevice\nobjectClass: dcmArchiveDevice\n\
         dicomDeviceName: dcm4chee-arc\ndicomInstalled: TRUE\ndicomSoftwareVersion: 5.26.0\n\
         dicomDescription:: {ROENTGEN}\ndcmProperty: store=fs1\ndcmFuzzyAlgorithmClass: org.example.Soundex\n\
         dcmTaskPollingInterval: PT1M\n"
    );
    let _ = writeln!(
        text,
        "dn: cn=dicom,{DEVICE}\nobjectClass: dicomNetworkConnection\ncn: dicom\ndicomHostname: archive-host\ndicomPort: 11112\n\n\
         dn: cn=Image Reader Factory,{DEVICE}\nobjectClass: dcmImageReaderFactory\ncn: Image Reader Factory\n"
    );
    for ae in AES {
        text.push_str(&application_entity(ae, ""));
        for (index, kind) in storage_classes().iter().enumerate() {
            text.push_str(&capability(ae, kind, "SCU", index, ""));
            if ae == "DCM4CHEE" {
                text.push_str(&capability(ae, kind, "SCP", index, ""));
            }
        }
    }
    for (exporter, queue) in [("old-wado", "Export1"), ("dicom", "Export2")] {
        let _ = writeln!(
            text,
            "dn: dcmExporterID={exporter},{DEVICE}\nobjectClass: dcmExporter\ndcmExporterID: {exporter}\n\
             dcmURI: wado:http://archive-host/{exporter}\ndcmQueueName: {queue}\n"
        );
    }
    let storescp = format!("dicomDeviceName=storescp,cn=Devices,cn=DICOM Configuration,{BASE}");
    let _ = writeln!(
        text,
        "dn: {storescp}\nobjectClass: dicomDevice\ndicomDeviceName: storescp\ndicomInstalled: TRUE\n"
    );
    let _ = writeln!(
        text,
        "dn: ou=users,{BASE}\nobjectClass: organizationalUnit\nou: users\n"
    );
    for user in ["root", "admin", "user"] {
        let _ = writeln!(
            text,
            "dn: uid={user},ou=users,{BASE}\nobjectClass: inetOrgPerson\nuid: {user}\nsn: {user}\ncn: {user}\nuserPassword: not-a-real-one\n"
        );
    }
    for role in ["root", "admin", "user"] {
        let _ = writeln!(
            text,
            "dn: cn={role},ou=users,{BASE}\nobjectClass: groupOfNames\ncn: {role}\nmember: uid={role},ou=users,{BASE}\n"
        );
    }
    text
}

fn storage_classes() -> Vec<String> {
    KINDS
        .iter()
        .flat_map(|kind| {
            FORMS
                .iter()
                .map(move |form| format!("{kind} {form} Storage"))
        })
        .collect()
}

fn application_entity(ae: &str, changetype: &str) -> String {
    format!(
        "dn: dicomAETitle={ae},{DEVICE}\n{changetype}objectClass: dicomNetworkAE\nobjectClass: dcmArchiveNetworkAE\n\
         dicomAETitle: {ae}\ndicomNetworkConnectionReference: cn=dicom,{DEVICE}\n\
         dicomAssociationInitiator: TRUE\ndicomAssociationAcceptor: TRUE\ndcmAcceptedUserRole: root\n\n"
    )
}

fn capability(ae: &str, kind: &str, role: &str, index: usize, changetype: &str) -> String {
    format!(
        "dn: cn={kind} {role},dicomAETitle={ae},{DEVICE}\n{changetype}objectClass: dicomTransferCapability\n\
         cn: {kind} {role}\ndicomSOPClass: 1.2.840.10008.5.1.4.1.1.{index}\ndicomTransferRole: {role}\n\
         dicomTransferSyntax: {IMPLICIT}\ndicomTransferSyntax: {EXPLICIT}\n\n"
    )
}

fn modify(dn: &str, change: &str, attribute: &str, values: &[&str]) -> String {
    let mut text = format!("dn: {dn}\nchangetype: modify\n{change}: {attribute}\n");
    for value in values {
        let _ = writeln!(text, "{attribute}: {value}");
    }
    // As upstream's files, without the closing line that most tools write.
    text.push('\n');
    text
}

fn web_app(name: &str, ae: &str) -> String {
    format!(
        "dn: dcmWebAppName={name},{DEVICE}\nchangetype: add\nobjectClass: dcmWebApp\ndcmWebAppName: {name}\n\
         dcmWebServicePath: /dcm4chee-arc/aets/{ae}/rs\ndcmServiceClass: QIDO_RS\ndcmServiceClass: WADO_RS\n\
         dicomAETitle: {ae}\n\n"
    )
}

/// Returns the files with changes: path below `/etc/openldap/data`, and content.
#[must_use]
pub fn updates() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut file = |version: &str, component: &str, records: String| {
        let path = format!("{version}/update-{component}-{version}.ldif");
        files.push((path, format!("version: 1\n\n{records}")));
    };
    let ae = |title: &str| format!("dicomAETitle={title},{DEVICE}");
    let vendor = format!(
        "dn: {DEVICE}\nchangetype: modify\nreplace: dicomVendorData\ndicomVendorData:< file:vendor-data.zip\n\n"
    );
    let classes = storage_classes();

    file("5.26.1", "dev", vendor.clone());

    let role = |title: &str, role: &str| modify(&ae(title), "add", "dcmAcceptedUserRole", &[role]);
    file(
        "5.28.0",
        "DCM4CHEE",
        role("DCM4CHEE", "admin") + &role("DCM4CHEE", "user"),
    );
    file("5.28.0", "AS_RECEIVED", role("AS_RECEIVED", "admin"));
    file(
        "5.28.0",
        "IOCM_REGULAR_USE",
        role("IOCM_REGULAR_USE", "admin"),
    );

    // A capability goes, another comes in its place.
    file(
        "5.29.0",
        "AS_RECEIVED",
        format!(
            "dn: cn=CR Report Storage SCU,{}\nchangetype: delete\n\n",
            ae("AS_RECEIVED")
        ) + &capability(
            "AS_RECEIVED",
            "Photoacoustic Image Storage",
            "SCU",
            90,
            "changetype: add\n",
        ),
    );

    let mut records = String::new();
    for kind in classes.iter().take(6) {
        let dn = format!("cn={kind} SCP,{}", ae("DCM4CHEE"));
        records += &modify(
            &dn,
            "replace",
            "dicomTransferSyntax",
            &[EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2"],
        );
    }
    file("5.29.1", "DCM4CHEE", records);
    let mut records = application_entity("WORKLIST", "changetype: add\n");
    for (index, kind) in classes.iter().take(13).enumerate() {
        records += &capability("WORKLIST", kind, "SCU", index, "changetype: add\n");
    }
    file("5.29.1", "WORKLIST", records);
    file(
        "5.29.1",
        "dev",
        vendor.clone()
            + &modify(DEVICE, "add", "dcmProperty", &["worklist=on", "mpps=on"])
            + &modify(DEVICE, "replace", "dcmTaskPollingInterval", &["PT30S"]),
    );

    let apps: String = ["DCM4CHEE", "DCM4CHEE-WADO", "DCM4CHEE-STOW"]
        .map(|name| web_app(name, "DCM4CHEE"))
        .concat();
    file("5.29.2", "DCM4CHEE", apps);
    file(
        "5.29.2",
        "AS_RECEIVED",
        web_app("AS_RECEIVED", "AS_RECEIVED"),
    );
    // One record with several changes, the first of which makes room for the second.
    file(
        "5.29.2",
        "dev",
        format!(
            "dn: {DEVICE}\nchangetype: modify\ndelete: dcmProperty\ndcmProperty: store=fs1\n-\nadd: dcmProperty\n\
             dcmProperty: store=fs2\n-\ndelete: dcmFuzzyAlgorithmClass\n-\nadd: dcmFuzzyAlgorithmClass\n\
             dcmFuzzyAlgorithmClass: org.example.Metaphone\n-\n\n"
        ),
    );

    file(
        "5.30.0",
        "DCM4CHEE",
        ["one", "two"]
            .map(|name| web_app(name, "DCM4CHEE"))
            .concat(),
    );

    // What 5.31.0 sets is known only to the updated schema.
    let mut records = String::from("# The exporter keeps its settings under a new name.\n");
    let _ = writeln!(
        records,
        "dn: dcmExporterID=old-wado,{DEVICE}\nchangetype: modrdn\nnewrdn: dcmExporterID=WADO Exporter\ndeleteoldrdn: 1\n"
    );
    records += &modify(
        &format!("dcmExporterID=WADO Exporter,{DEVICE}"),
        "replace",
        "dcmQueueName",
        &["Export9"],
    );
    for index in 0..26 {
        records += &modify(
            DEVICE,
            "add",
            "dcmTrustedIssuer",
            &[&format!("issuer-{index:02}")],
        );
    }
    let _ = writeln!(
        records,
        "dn: {DEVICE}\nchangetype: modify\nreplace: dicomDescription\ndicomDescription:: {ARCHIVE}\n-\nadd: dcmProperty\n\
         dcmProperty: a value that is longer than a line of LDIF should be, so that it is\n  \
         folded, and goes on here with a blank of its own\n-\n"
    );
    file("5.31.0", "dev", records + &vendor);
    for title in AES {
        let mut records = String::new();
        for index in 0..4 {
            let kind = format!("Volumetric {index} Storage");
            records += &capability(title, &kind, "SCU", 100 + index, "changetype: add\n");
        }
        file("5.31.0", title, records);
    }

    file(
        "5.31.1",
        "dev",
        vendor.clone()
            + &modify(DEVICE, "add", "dcmProperty", &["task.retry=3"])
            + &modify(DEVICE, "add", "dcmTrustedIssuer", &["issuer-z"]),
    );

    for title in AES {
        let mut records = String::new();
        for kind in &classes {
            if title == "AS_RECEIVED" && kind == "CR Report Storage" {
                continue;
            }
            for role in ["SCU", "SCP"] {
                if role == "SCU" || title == "DCM4CHEE" {
                    let dn = format!("cn={kind} {role},{}", ae(title));
                    records += &modify(&dn, "add", "dicomTransferSyntax", &NEW_SYNTAXES);
                }
            }
        }
        file("5.31.2", title, records);
    }
    let mut records = vendor.clone();
    for syntax in NEW_SYNTAXES {
        let _ = writeln!(
            records,
            "dn: dicomTransferSyntax={syntax},cn=Image Reader Factory,{DEVICE}\nchangetype: add\n\
             objectClass: dcmImageReader\ndicomTransferSyntax: {syntax}\ndcmJavaClassName: org.example.Reader\n"
        );
    }
    file("5.31.2", "dev", records);
    let storescp = format!("dicomDeviceName=storescp,cn=Devices,cn=DICOM Configuration,{BASE}");
    file(
        "5.31.2",
        "storescp",
        modify(&storescp, "add", "dicomDescription", &["receives in tests"]),
    );

    for title in AES {
        let values: &[&str] = if title == "DCM4CHEE" {
            &["admin", "user"]
        } else {
            &["admin"]
        };
        file(
            "5.32.0",
            title,
            modify(&ae(title), "delete", "dcmAcceptedUserRole", values),
        );
    }
    let mut records = modify(DEVICE, "replace", "dicomSoftwareVersion", &["5.32.0"]);
    for id in ["default", "pixel"] {
        let _ = writeln!(
            records,
            "dn: dcmBulkDataDescriptorID={id},{DEVICE}\nchangetype: add\nobjectClass: dcmBulkDataDescriptor\n\
             dcmBulkDataDescriptorID: {id}\ndcmTag: 7FE00010\n"
        );
    }
    file("5.32.0", "dev", records + &vendor);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_three_hundred_records_of_every_kind() {
        let text: String = updates().into_iter().map(|(_, text)| text).collect();
        let count = |line: &str| text.lines().filter(|found| found.starts_with(line)).count();
        let records = count("dn: ");
        assert!((250..350).contains(&records), "{records}");
        for kind in [
            "changetype: add",
            "changetype: delete",
            "changetype: modrdn",
            "add: ",
            "replace: ",
            "delete: ",
            "dicomVendorData:< ",
            "dicomDescription:: ",
        ] {
            assert!(count(kind) > 0, "{kind}");
        }
    }
}
