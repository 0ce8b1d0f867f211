//! The modules against a real slapd, judged by OpenLDAP's own tools.

use std::path::{Path, PathBuf};

use lab::directory::{VERSIONS, updates, vendor_data};
use lab::images::new_slapd;
use lab::slapd::{CONFIG_ADMIN, Slapd, SlapdOptions, entries_of};
use serde_json::{Value, json};

use crate::modules::context::{ServiceHandle, TaskContext};
use crate::modules::error::ModuleError;
use crate::modules::module::{Module, Outcome, Plan};
use crate::modules::registry;

const BASE: &str = "dc=dcm4che,dc=org";
const PASSWORD: &str = "hunter2-long";

/// A slapd with the lab's 5.26 directory, and a context whose service it is.
struct Rig {
    slapd: Slapd,
    ctx: TaskContext,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let image = new_slapd().expect("the lab's image");
        let options = SlapdOptions {
            password: PASSWORD.into(),
            publish: true,
        };
        let slapd = Slapd::start(&image, None, &options).expect("slapd");
        let dir = tempfile::tempdir().expect("temp dir");
        let mut ctx = TaskContext::for_tests(dir.path());
        ctx.services.push(ServiceHandle {
            name: "directory".into(),
            container_id: slapd.name().into(),
            container_name: slapd.name().into(),
            ports: [(
                "389/tcp".to_owned(),
                slapd.address().expect("port").parse().expect("address"),
            )]
            .into(),
            env: [("LDAP_ROOTPASS", PASSWORD), ("LDAP_CONFIGPASS", PASSWORD)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        });
        Self { slapd, ctx, dir }
    }

    async fn run(&self, name: &str, arguments: Value) -> Result<Outcome, ModuleError> {
        let module = module(name, arguments);
        let intent = module.prepare(&self.ctx).await?;
        module.apply(&self.ctx, &intent).await
    }

    async fn check(&self, name: &str, arguments: Value) -> Plan {
        module(name, arguments)
            .check(&self.ctx)
            .await
            .expect("checked")
    }

    /// What `ldapsearch` finds of one entry: its lines, or nothing.
    fn look(&self, dn: &str) -> Vec<String> {
        let script =
            format!(". setenv.sh; as_root ldapsearch -LLL -o ldif-wrap=no -s base -b '{dn}'");
        let (code, text) = self.slapd.run(&["sh", "-c", &script]).expect("ldapsearch");
        match code {
            Some(0) => text.lines().map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        std::fs::write(&path, text).expect("write");
        path
    }

    /// Puts the lab's files with changes into the folder of the test.
    fn updates(&self) -> Vec<String> {
        std::fs::write(self.dir.path().join("vendor-data.zip"), vendor_data()).expect("write");
        let files = updates();
        for (path, text) in &files {
            self.file(path, text);
        }
        files.into_iter().map(|(path, _)| path).collect()
    }
}

fn module(name: &str, arguments: Value) -> Box<dyn Module> {
    (registry::find(name).expect("module").build)(arguments).expect("arguments")
}

fn failed(outcome: Result<Outcome, ModuleError>) -> (String, String, Value) {
    match outcome {
        Err(ModuleError::Failed(failure)) => (
            failure.code().to_owned(),
            failure.to_string(),
            failure.result().into(),
        ),
        other => panic!("a failure is expected: {other:?}"),
    }
}

fn site_names() -> Value {
    json!([
        {"regexp": "dicomDeviceName=dcm4chee-arc", "replace": "dicomDeviceName=kaapana"},
        {"regexp": "dicomAETitle=DCM4CHEE", "replace": "dicomAETitle=KAAPANA"},
        {"regexp": "^(dicomAETitle|dcmRetrieveAET): DCM4CHEE", "replace": r"\1: KAAPANA"},
    ])
}

fn apply_arguments(path: &str, values_from: &Path) -> Value {
    json!({"path": path, "values_from": values_from, "substitute": site_names()})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_what_is_asked_for_and_failures_are_told_apart() {
    let rig = Rig::new();
    let devices = "cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org";
    for (scope, dn, filter, count) in [
        ("base", devices, "(objectClass=*)", 1),
        ("onelevel", devices, "(objectClass=*)", 2),
        ("children", BASE, "(uid=*)", 3),
        ("subordinate", devices, "(dicomDeviceName=KAAPANA)", 1),
    ] {
        let arguments = json!({"dn": dn, "scope": scope, "filter": filter, "attrs": ["dicomDeviceName", "uid"]});
        let found = rig.run("ldap_search", arguments).await.expect("search");
        assert_eq!(
            found.result["results"].as_array().expect("list").len(),
            count,
            "{scope}"
        );
    }
    let device = format!("dicomDeviceName=kaapana,{devices}");
    let found = rig
        .run("ldap_search", json!({"dn": device}))
        .await
        .expect("search");
    assert_eq!(found.result["results"][0]["dicomDescription"], "Röntgen");

    let (code, ..) = failed(
        rig.run("ldap_search", json!({"dn": BASE, "filter": "(a"}))
            .await,
    );
    assert_eq!(code, "ldap::argument");
    let (code, message, _) = failed(
        rig.run("ldap_search", json!({"dn": BASE, "bind_pw": "wrong-one"}))
            .await,
    );
    assert_eq!(code, "ldap::invalid_credentials");
    assert!(!message.contains("wrong-one"), "{message}");
    let nobody = json!({"dn": BASE, "server_uri": "ldap://127.0.0.1:1"});
    assert_eq!(
        failed(rig.run("ldap_search", nobody).await).0,
        "ldap::connect"
    );
    let (code, ..) = failed(rig.run("ldap_search", json!({"dn": "dc=nowhere"})).await);
    assert_eq!(code, "ldap::refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_added_once_repaired_and_removed() {
    let rig = Rig::new();
    let dn = format!("cn=auth,ou=users,{BASE}");
    let present = json!({"dn": dn, "objectClass": "groupOfNames",
        "attributes": {"cn": "auth", "member": format!("uid=user,ou=users,{BASE}")}});
    assert!(matches!(
        rig.check("ldap_entry", present.clone()).await,
        Plan::NeedsChange(_)
    ));
    assert!(
        rig.look(&dn).is_empty(),
        "check must not change the directory"
    );
    assert!(
        rig.run("ldap_entry", present.clone())
            .await
            .expect("added")
            .changed
    );
    assert!(
        rig.look(&dn)
            .contains(&format!("member: uid=user,ou=users,{BASE}"))
    );
    assert_eq!(rig.check("ldap_entry", present.clone()).await, Plan::InSync);
    assert!(
        !rig.run("ldap_entry", present.clone())
            .await
            .expect("there")
            .changed
    );
    rig.slapd
        .modify(&format!("dn: {dn}\nchangetype: delete\n"))
        .expect("removed by hand");
    assert!(
        rig.run("ldap_entry", present.clone())
            .await
            .expect("repaired")
            .changed
    );

    let users = format!("ou=users,{BASE}");
    let (code, ..) = failed(
        rig.run("ldap_entry", json!({"dn": users, "state": "absent"}))
            .await,
    );
    assert_eq!(code, "ldap::refused");
    let absent = json!({"dn": users, "state": "absent", "recursive": true});
    assert!(
        rig.run("ldap_entry", absent.clone())
            .await
            .expect("removed")
            .changed
    );
    assert!(rig.look(&users).is_empty());
    assert!(!rig.run("ldap_entry", absent).await.expect("gone").changed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_come_to_the_wanted_values_by_the_servers_rules() {
    let rig = Rig::new();
    let dn = format!("dicomDeviceName=kaapana,cn=Devices,cn=DICOM Configuration,{BASE}");
    let of = |attributes: Value, state: &str| json!({"dn": dn, "attributes": attributes, "state": state});
    let wanted = of(
        json!({"dcmProperty": ["store=fs1", "b"], "dicomSoftwareVersion": "5.26.0"}),
        "present",
    );
    assert!(matches!(
        rig.check("ldap_attrs", wanted.clone()).await,
        Plan::NeedsChange(_)
    ));
    assert!(!rig.look(&dn).contains(&"dcmProperty: b".to_owned()));
    let done = rig.run("ldap_attrs", wanted.clone()).await.expect("added");
    assert!(done.changed);
    assert_eq!(
        done.result["modlist"],
        json!([["add", "dcmProperty", ["b"]]])
    );
    assert!(rig.look(&dn).contains(&"dcmProperty: b".to_owned()));
    assert_eq!(rig.check("ldap_attrs", wanted.clone()).await, Plan::InSync);
    assert!(!rig.run("ldap_attrs", wanted).await.expect("there").changed);

    // The attribute ignores case, so this value is there.
    let same = of(json!({"dicomDescription": "RÖNTGEN"}), "exact");
    assert_eq!(rig.check("ldap_attrs", same).await, Plan::InSync);
    let exact = of(json!({"dcmProperty": ["only"]}), "exact");
    assert!(
        rig.run("ldap_attrs", exact.clone())
            .await
            .expect("replaced")
            .changed
    );
    rig.slapd
        .modify(&format!(
            "dn: {dn}\nchangetype: modify\nadd: dcmProperty\ndcmProperty: by hand\n"
        ))
        .expect("changed by hand");
    assert!(
        rig.run("ldap_attrs", exact)
            .await
            .expect("repaired")
            .changed
    );
    let lines = rig.look(&dn);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("dcmProperty:"))
            .count(),
        1
    );
    let absent = of(json!({"dcmProperty": ["only", "never there"]}), "absent");
    assert!(
        rig.run("ldap_attrs", absent.clone())
            .await
            .expect("removed")
            .changed
    );
    assert!(!rig.run("ldap_attrs", absent).await.expect("gone").changed);
    let nobody = json!({"dn": format!("cn=nobody,{BASE}"), "attributes": {"cn": "x"}});
    assert_eq!(
        failed(rig.run("ldap_attrs", nobody).await).0,
        "ldap::refused"
    );
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
    other_title["substitute"][1]["replace"] = "dicomAETitle=Kaapana".into();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_imported_whole_into_another_slapd() {
    let rig = Rig::new();
    let data = json!({"base": BASE, "dest": "data.ldif"});
    let config = json!({"base": "cn=config", "dest": "config.ldif", "bind_dn": CONFIG_ADMIN});
    assert!(matches!(
        rig.check("ldap_export", data.clone()).await,
        Plan::NeedsChange(_)
    ));
    let saved = rig.run("ldap_export", data.clone()).await.expect("data");
    assert_eq!(
        saved.result["entries"],
        rig.slapd.data().expect("slapcat").len()
    );
    rig.run("ldap_export", config).await.expect("config");
    assert_eq!(
        failed(rig.run("ldap_export", data).await).0,
        "ldap::dest_exists"
    );

    let script = "set -e; mkdir /tmp/config
        slapadd -n 0 -F /tmp/config -l /export/config.ldif
        slapadd -n 1 -F /tmp/config -l /export/data.ldif
        slapcat -o ldif-wrap=no -n $1 -F /tmp/config";
    let imported = |database: &str| {
        let mount = format!(
            "type=bind,source={},target=/export",
            rig.dir.path().display()
        );
        let image = new_slapd().expect("image");
        let name = lab::workplace::unique("kaapana-lab-import");
        lab::images::docker(&[
            "run",
            "--rm",
            "--name",
            &name,
            "--label",
            "kaapana-lab=1",
            "--network",
            "none",
            "--mount",
            &mount,
            &image,
            "sh",
            "-c",
            script,
            "sh",
            database,
        ])
        .expect("slapadd")
    };
    assert_eq!(
        entries_of(&imported("1")),
        rig.slapd.data().expect("slapcat")
    );
    // An import numbers ordered values anew; Debian's own core schema has numbers twice.
    let config = |entries: Vec<String>| -> Vec<Vec<String>> {
        let index = regex::Regex::new(r"^(olc\w+: )\{\d+\}").expect("valid");
        let lines = |entry: &String| {
            let mut lines: Vec<String> = entry
                .lines()
                .map(|line| index.replace(line, "$1").into_owned())
                .collect();
            lines.sort_unstable();
            lines
        };
        entries.iter().map(lines).collect()
    };
    let (import, own) = (
        entries_of(&imported("0")),
        rig.slapd.config().expect("slapcat"),
    );
    assert_eq!(config(import), config(own));
    // Identities came along.
    let (_, text) = rig
        .slapd
        .run(&[
            "slapcat",
            "-o",
            "ldif-wrap=no",
            "-n",
            "1",
            "-F",
            lab::images::SLAPD_CONFIG,
        ])
        .expect("slapcat");
    let uuid = text
        .lines()
        .find(|line| line.starts_with("entryUUID:"))
        .expect("uuid");
    assert!(imported("1").contains(uuid));
}
