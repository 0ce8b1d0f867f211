//! Entries and attributes, searches and exports against a real slapd, judged by OpenLDAP's own tools.

use lab::images::new_slapd;
use lab::slapd::{CONFIG_ADMIN, entries_of};
use serde_json::{Value, json};

use super::live_rig::{BASE, Rig, failed};
use crate::task::module::Plan;

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
