//! LDIF files against a real slapd: the image's scripts with ldapmodify are the peer, slapcat the judge.

use std::path::Path;

use lab::directory::VERSIONS;
use lab::slapd::CONFIG_ADMIN;
use serde_json::{Value, json};

use super::live_rig::{BASE, Rig, failed};
use crate::task::module::Plan;

fn site_names() -> Value {
    json!([
        {"regexp": "dicomDeviceName=dcm4chee-arc", "replace": "dicomDeviceName=kaapana"},
        {"regexp": "(dicomAETitle|dcmWebAppName)=DCM4CHEE", "replace": r"\1=KAAPANA"},
        {"regexp": "^(dicomAETitle|dcmRetrieveAET|dcmWebAppName): DCM4CHEE", "replace": r"\1: KAAPANA"},
        {"regexp": "^dcmWebServicePath: /dcm4chee-arc/aets/DCM4CHEE", "replace": "dcmWebServicePath: /dcm4chee-arc/aets/KAAPANA"},
    ])
}

fn apply_arguments(path: &str, values_from: &Path) -> Value {
    json!({"path": path, "values_from": values_from, "substitute": site_names()})
}

/// The scripts of the image, with ldapmodify, are the peer; the traps that they have are shown on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_updates_equal_those_of_ldapmodify_record_by_record() {
    let (ours, theirs) = (Rig::new(), Rig::new());
    let files = ours.updates();

    // Data before the schema: the script hides it, the module does not.
    let early = apply_arguments("5.31.0/update-dev-5.31.0.ldif", ours.dir.path());
    let (code, message, result) = failed(ours.run("ldif_apply", early).await);
    assert_eq!(
        (code.as_str(), &result["result_code"]),
        ("ldap::refused", &json!(17)),
        "{message}"
    );
    assert!(message.contains("undefined attribute type"), "{message}");
    let by_script = theirs
        .slapd
        .run(&["update-data", "5.31.0"])
        .expect("script");
    assert_eq!(by_script.0, Some(0), "the script says that all went well");
    assert!(
        by_script.1.contains("Undefined attribute type (17)"),
        "{}",
        by_script.1
    );
    let (ours, theirs) = (Rig::new(), Rig::new());
    ours.updates();

    let schema = lab::agent::workspace().join("tests/ldap/schema");
    for name in ["dicom-modify.ldif", "dcm4chee-archive-modify.ldif"] {
        let arguments = json!({"path": schema.join(name), "bind_dn": CONFIG_ADMIN});
        let first = ours
            .run("ldif_apply", arguments.clone())
            .await
            .expect("schema");
        // The first one defines what is defined already.
        assert_eq!(first.changed, name != "dicom-modify.ldif", "{name}");
        let again = ours
            .run("ldif_apply", arguments)
            .await
            .expect("schema again");
        assert!(!again.changed, "{name} is recognised");
    }
    assert_eq!(
        theirs.slapd.run(&["update-schema"]).expect("script").0,
        Some(0)
    );
    // Every slapd has salted its passwords by itself.
    let config = |rig: &Rig| -> Vec<String> {
        let entries = rig.slapd.config().expect("slapcat");
        let lines = entries.iter().flat_map(|entry| entry.lines());
        lines
            .filter(|line| !line.starts_with("olcRootPW:"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(config(&ours), config(&theirs));

    let mut records = 0;
    for version in VERSIONS {
        for path in files
            .iter()
            .filter(|path| path.starts_with(&format!("{version}/")))
        {
            let done = ours
                .run("ldif_apply", apply_arguments(path, ours.dir.path()))
                .await
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(
                done.result["records"].as_u64(),
                done.result["applied"]
                    .as_u64()
                    .map(|n| n + done.result["already"].as_u64().unwrap_or(0))
            );
            records += done.result["records"].as_u64().unwrap_or(0);
        }
        let (code, text) = theirs.slapd.run(&["update-data", version]).expect("script");
        assert_eq!(code, Some(0), "{text}");
    }
    let (mine, peer) = (
        ours.slapd.data().expect("slapcat"),
        theirs.slapd.data().expect("slapcat"),
    );
    assert_eq!(mine.len(), peer.len());
    assert_eq!(mine, peer);
    println!("{records} records");

    // Read as one list, each record is there or was overtaken.
    let mut all = apply_arguments("", ours.dir.path());
    all["path"] = json!(files);
    let verified = ours
        .run("ldif_verify", all.clone())
        .await
        .expect("all there");
    assert_eq!(verified.result["records"], records);
    let device = format!("dicomDeviceName=kaapana,cn=Devices,cn=DICOM Configuration,{BASE}");
    ours.slapd
        .modify(&format!("dn: {device}\nchangetype: modify\ndelete: dcmTrustedIssuer\ndcmTrustedIssuer: issuer-07\n"))
        .expect("taken away by hand");
    let (code, _, result) = failed(ours.run("ldif_verify", all.clone()).await);
    assert_eq!(code, "ldap::missing");
    assert_eq!(
        result["missing"].as_array().map(Vec::len),
        Some(1),
        "{result}"
    );
    ours.slapd
        .modify(&format!(
            "dn: {device}\nchangetype: modify\nadd: dcmTrustedIssuer\ndcmTrustedIssuer: issuer-07\n"
        ))
        .expect("brought back by hand");

    // Once more, as one list: nothing is applied, although later versions took back what earlier ones did.
    let before = ours.slapd.data().expect("slapcat");
    let again = ours.run("ldif_apply", all).await.expect("again");
    assert!(!again.changed);
    assert_eq!(before, ours.slapd.data().expect("slapcat"));
}

/// Every kind of record, and entries that several records change one after the other.
const CHAIN: &str = "version: 1

dn: ou=BASE
changetype: add
objectClass: organizationalUnit
ou: BASE_RDN
description: one

dn: ou=BASE
changetype: modify
add: description
description: two
-
replace: st
st: a

dn: ou=BASE
changetype: modify
delete: description
description: one
-
replace: st
st: b

dn: cn=k,ou=BASE
changetype: add
objectClass: device
cn: k
description: first

dn: ou=BASE
changetype: modify
replace: st
st: c
-
replace: description
description: three
description: four

dn: cn=k,ou=BASE
changetype: modify
replace: description
description: second

dn: cn=k,ou=BASE
changetype: modrdn
newrdn: cn=l
deleteoldrdn: 1

dn: cn=l,ou=BASE
changetype: modify
add: serialNumber
serialNumber: 7

dn: cn=gone,ou=BASE
changetype: add
objectClass: device
cn: gone

dn: cn=gone,ou=BASE
changetype: delete

dn: cn=l,ou=BASE
changetype: modify
delete: serialNumber
-
add: serialNumber
serialNumber: 8
serialNumber: 9

dn: cn=l,ou=BASE
changetype: modrdn
newrdn: cn=m
deleteoldrdn: 0

dn: cn=m,ou=BASE
changetype: delete

dn: cn=m,ou=BASE
changetype: add
objectClass: device
cn: m
description: another one of this name
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_on_from_whichever_record_it_stopped_at() {
    let rig = Rig::new();
    let path = rig.file("chain.ldif", CHAIN);
    let records: Vec<&str> = CHAIN.split("\n\n").skip(1).collect();
    let name = |case: usize| format!("case{case},{BASE}");
    let content = |case: usize| -> Vec<String> {
        let data = rig.slapd.data().expect("slapcat");
        data.into_iter()
            .filter(|entry| {
                entry
                    .lines()
                    .next()
                    .is_some_and(|dn| dn.ends_with(&name(case)))
            })
            .map(|entry| entry.replace(&format!("case{case}"), "case"))
            .collect()
    };
    for done in 0..=records.len() {
        let by_hand = records[..done]
            .join("\n\n")
            .replace("BASE_RDN", &format!("case{done}"))
            .replace("BASE", &name(done));
        if done > 0 {
            rig.slapd
                .modify(&format!("{by_hand}\n"))
                .expect("ldapmodify");
        }
        let arguments = json!({"path": path, "substitute": [
            {"regexp": "BASE_RDN", "replace": format!("case{done}")},
            {"regexp": "BASE", "replace": name(done)},
        ]});
        let plan = rig.check("ldif_apply", arguments.clone()).await;
        assert_eq!(
            plan == Plan::InSync,
            done == records.len(),
            "after {done}: {plan:?}"
        );
        let outcome = rig.run("ldif_apply", arguments.clone()).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("after {done}: {error}"));
        assert_eq!(content(done), content(0), "after {done} records");
        assert_eq!(outcome.changed, done < records.len(), "after {done}");
        let again = rig.run("ldif_apply", arguments).await.expect("again");
        assert!(!again.changed, "after {done}");
    }
    assert_eq!(content(0).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_changed_by_hand_stops_the_file_before_anything_is_applied() {
    let rig = Rig::new();
    rig.updates();
    let device = format!("dicomDeviceName=kaapana,cn=Devices,cn=DICOM Configuration,{BASE}");
    let path = "5.29.2/update-dev-5.29.2.ldif";
    // A record without a conflict before the one with it.
    let text = std::fs::read_to_string(rig.dir.path().join(path)).expect("file");
    let first =
        format!("dn: ou=new,{BASE}\nchangetype: add\nobjectClass: organizationalUnit\nou: new\n\n");
    rig.file(path, &text.replacen("dn: ", &format!("{first}dn: "), 1));
    rig.slapd
        .modify(&format!(
            "dn: {device}\nchangetype: modify\nreplace: dcmProperty\ndcmProperty: store=mine\n"
        ))
        .expect("changed by hand");
    let before = rig.slapd.data().expect("slapcat");
    let (code, message, result) = failed(
        rig.run("ldif_apply", apply_arguments(path, rig.dir.path()))
            .await,
    );
    assert_eq!(code, "ldap::conflict");
    assert_eq!(
        (&result["line"], &result["applied"]),
        (&json!(8), &json!(0)),
        "{message}"
    );
    assert!(
        message.contains(":8: modify `dicomDeviceName=kaapana,"),
        "{message}"
    );
    assert!(
        message.contains("its `dcmProperty` is `store=mine`"),
        "{message}"
    );
    assert_eq!(before, rig.slapd.data().expect("slapcat"));
    rig.slapd
        .modify(&format!(
            "dn: {device}\nchangetype: modify\nreplace: dcmProperty\ndcmProperty: store=fs1\n"
        ))
        .expect("brought back by hand");
    let done = rig
        .run("ldif_apply", apply_arguments(path, rig.dir.path()))
        .await
        .expect("goes on");
    assert_eq!(done.result["applied"], 2);

    let wrong = apply_arguments("5.28.0/update-DCM4CHEE-5.28.0.ldif", rig.dir.path());
    let mut other_title = wrong.clone();
    other_title["substitute"][1]["replace"] = r"\1=Kaapana".into();
    let (code, message, _) = failed(rig.run("ldif_apply", other_title).await);
    assert_eq!(code, "ldap::conflict");
    assert!(message.contains("there is no such entry"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_syntax_error_is_told_with_line_and_column_and_nothing_is_applied() {
    let rig = Rig::new();
    let good =
        format!("dn: ou=new,{BASE}\nchangetype: add\nobjectClass: organizationalUnit\nou: new\n\n");
    rig.file(
        "bad.ldif",
        &format!("{good}dn: ou=new,{BASE}\nchangetype: modify\nad: description\n"),
    );
    let (code, message, result) = failed(rig.run("ldif_apply", json!({"path": "bad.ldif"})).await);
    assert_eq!(code, "ldap::syntax");
    assert_eq!(
        (&result["line"], &result["column"]),
        (&json!(8), &json!(1)),
        "{message}"
    );
    assert!(rig.look(&format!("ou=new,{BASE}")).is_empty());
    let (code, ..) = failed(
        rig.run(
            "ldif_apply",
            json!({"path": "bad.ldif", "checksum": "0".repeat(64)}),
        )
        .await,
    );
    assert_eq!(code, "ldap::checksum");
}
