//! The LDAP part, offline, on whole sites: killed in the middle of a file, and judged by slapcat.

use std::error::Error;
use std::fs;

use lab::directory::VERSIONS;
use lab::images::{docker, new_slapd};
use lab::ldap_update::{applied, by_script, checksums, content, copy_of};
use lab::migration::{Migration, Running};
use lab::site::{Scale, Site};
use lab::slapd::{Slapd, SlapdOptions};
use serde_json::json;

type Outcome = Result<(), Box<dyn Error>>;

/// Sets what the offline variant needs.
fn offline(migration: &Migration) -> Outcome {
    migration.agent.set(&json!({
        "ldap_update": "offline",
        "slapd_image": new_slapd()?,
        "ldap_schema_files": ["dicom-modify.ldif", "dcm4chee-archive-modify.ldif"],
        "ldap_remap_retrieve_url": "https://kaapana.example.org",
    }))?;
    Ok(())
}

#[test]
fn a_run_killed_in_the_middle_of_a_file_ends_like_one_that_was_not() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    offline(&migration)?;
    let site = &migration.site;
    let copy = copy_of(site, "by-script")?;
    let original = checksums(&site.fast_data_dir, "")?;

    let mut run = migration.start()?;
    run.wait_for("the middle of the records", || applied(&migration) > 150)?;
    run.kill()?;
    assert!(
        migration.is_open("ldap-data"),
        "killed too late or too early"
    );
    let done_before = applied(&migration);
    migration.finish()?;
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;
    assert!(applied(&migration) > done_before);

    let (data, config) = content(&site.ldap_dir(), &site.slapd_config_dir())?;
    let (expected_data, expected_config) = by_script(&copy)?;
    assert_eq!(data.len(), expected_data.len());
    for (found, expected) in data.iter().zip(&expected_data) {
        assert_eq!(found, expected);
    }
    assert_eq!(config, expected_config);

    // The old directory is kept as it was; nothing of the work is left.
    assert_eq!(checksums(&site.fast_data_dir, "-old")?, original);
    for gone in ["ldap-new", "slapd.d-new"] {
        assert!(!site.fast_data_dir.join(gone).exists(), "{gone}");
    }
    for backup in ["ldap-data.ldif", "ldap-config.ldif"] {
        assert!(site.backup_dir.join(backup).is_file(), "{backup}");
    }
    let journal = migration.agent.journal();
    let text = serde_json::to_string(&journal)?;
    assert!(
        !text.contains("{SSHA}") && !text.contains("\"secret\""),
        "a password is in the journal"
    );
    Ok(())
}

#[test]
fn what_the_offline_variant_needs_is_looked_for_before_anything_is_done() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let must_end = |code: i32, says: &[&str]| -> Outcome {
        let ended = migration.start()?.end()?;
        ended.must_have(code)?;
        ended.must_say(says)?;
        assert!(
            !migration.site.backup_dir.join("sql").exists(),
            "something was done"
        );
        Ok(())
    };
    let must_stop = |says: &[&str]| must_end(2, says);
    migration.agent.set(&json!({"ldap_update": "later"}))?;
    must_end(5, &["must be `confirm`, `offline` or `pod`"])?;
    migration.agent.set(&json!({"ldap_update": "offline"}))?;
    must_stop(&["`slapd_image` is empty"])?;
    offline(&migration)?;
    let config = migration.site.slapd_config_dir();
    let aside = config.with_file_name("slapd.d-aside");
    fs::rename(&config, &aside)?;
    must_stop(&["find cn=config.ldif in"])?;
    fs::rename(&aside, &config)?;
    // A slapd at work on it, as in a pod that was not undeployed.
    let directories = (migration.site.ldap_dir(), migration.site.slapd_config_dir());
    let slapd = Slapd::start(
        &new_slapd()?,
        Some((&directories.0, &directories.1)),
        &SlapdOptions::default(),
    )?;
    must_stop(&["undeploy Kaapana first"])?;
    slapd.stop()?;
    fs::create_dir(migration.site.fast_data_dir.join("ldap-old"))?;
    must_stop(&["Nothing is where the LDAP part will put its own"])?;
    fs::remove_dir(migration.site.fast_data_dir.join("ldap-old"))?;
    // With all of it there, check mode comes to its end and changes nothing.
    let mut check = migration.agent.command(&["run", "--check"]);
    Running::start(&mut check)?.end()?.must_have(0)?;
    assert!(!migration.site.fast_data_dir.join("ldap-new").exists());
    migration.must_leave_nothing()?;
    Ok(())
}

#[test]
fn a_directory_with_another_password_or_changed_by_hand_is_told_and_goes_on() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    offline(&migration)?;
    let site = &migration.site;
    // Somebody changed the archive's device in 0.2.
    let change = |value: &str| -> Outcome {
        let slapd = Slapd::start(
            &new_slapd()?,
            Some((&site.ldap_dir(), &site.slapd_config_dir())),
            &SlapdOptions::default(),
        )?;
        slapd.modify(&format!(
            "dn: dicomDeviceName=kaapana,cn=Devices,cn=DICOM Configuration,{}\nchangetype: modify\n\
             replace: dcmProperty\ndcmProperty: store={value}\n",
            lab::directory::BASE
        ))?;
        slapd.stop()?;
        Ok(())
    };
    change("mine")?;
    migration
        .agent
        .set(&json!({"ldap_password": "not-the-password"}))?;
    let ended = migration.start()?.end()?;
    ended.must_have(2)?;
    ended
        .must_say(&["invalid_credentials"])
        .or_else(|_| ended.must_say(&["does not know this user and password"]))?;
    migration.agent.set(&json!({"ldap_password": "secret"}))?;
    let ended = migration.start()?.end()?;
    ended.must_have(2)?;
    ended.must_say(&["update-dev-5.29.2.ldif", "store=mine"])?;
    migration.must_leave_nothing()?;
    // The copy is what is brought in order; the original is not touched before the swap.
    let data = site.fast_data_dir.join("ldap-new");
    let config = site.fast_data_dir.join("slapd.d-new");
    let slapd = Slapd::start(
        &new_slapd()?,
        Some((&data, &config)),
        &SlapdOptions::default(),
    )?;
    slapd.modify(&format!(
        "dn: dicomDeviceName=kaapana,cn=Devices,cn=DICOM Configuration,{}\nchangetype: modify\n\
         delete: dcmProperty\ndcmProperty: store=mine\n-\nadd: dcmProperty\ndcmProperty: store=fs1\n",
        lab::directory::BASE
    ))?;
    slapd.stop()?;
    let before = applied(&migration);
    migration.finish()?;
    assert!(applied(&migration) > before);
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;
    Ok(())
}

#[test]
fn the_stand_ins_share_the_traps_of_the_images_scripts() -> Outcome {
    let slapd = Slapd::start(&new_slapd()?, None, &SlapdOptions::default())?;
    // Without the schema: hidden.
    let (code, text) = slapd.run(&["update-data", "5.31.0"])?;
    assert_eq!(code, Some(0));
    assert!(text.contains("Undefined attribute type (17)"), "{text}");
    // Twice: hidden, and a file that was interrupted is never completed.
    let fresh = Slapd::start(&new_slapd()?, None, &SlapdOptions::default())?;
    fresh.run(&["update-schema"])?;
    for version in &VERSIONS[..8] {
        fresh.run(&["update-data", version])?;
    }
    let count = |syntax: &str| -> Result<usize, Box<dyn Error>> {
        let data = fresh.data()?;
        Ok(data.iter().filter(|entry| entry.contains(syntax)).count())
    };
    fresh.modify(&format!(
        "dn: cn=CT Image Storage SCU,dicomAETitle=AS_RECEIVED,dicomDeviceName=kaapana,cn=Devices,cn=DICOM Configuration,{}\n\
         changetype: modify\nadd: dicomTransferSyntax\ndicomTransferSyntax: 1.2.840.10008.1.2.4.201\n",
        lab::directory::BASE
    ))?;
    let (code, text) = fresh.run(&["update-data", "5.31.2"])?;
    assert_eq!(code, Some(0));
    assert!(text.contains("Type or value exists (20)"), "{text}");
    let stopped = count("1.2.840.10008.1.2.4.203")?;
    fresh.run(&["update-data", "5.31.2"])?;
    assert_eq!(
        count("1.2.840.10008.1.2.4.203")?,
        stopped,
        "the same record stops it again"
    );
    let (code, _) = fresh.run(&["update-data", "5.31.2", "-c"])?;
    assert_eq!(code, Some(0));
    assert!(count("1.2.840.10008.1.2.4.203")? > stopped);
    // These do tell.
    assert_eq!(fresh.run(&["init-role", "auth", "root"])?.0, Some(0));
    assert_eq!(fresh.run(&["init-role", "auth", "root"])?.0, Some(68));
    assert_eq!(
        fresh.run(&["assign-role-to-user", "auth", "root"])?.0,
        Some(20)
    );
    assert_eq!(
        fresh.run(&["unassign-role-from-user", "auth", "admin"])?.0,
        Some(16)
    );
    Ok(())
}

#[test]
fn a_sites_directory_is_one_that_the_old_slapd_made() -> Outcome {
    let site = Site::temporary(Scale::S)?;
    let text = docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--label",
        "kaapana-lab=1",
        "--mount",
        &format!(
            "type=bind,source={},target={}",
            site.ldap_dir().display(),
            lab::images::SLAPD_DATA
        ),
        "--mount",
        &format!(
            "type=bind,source={},target={}",
            site.slapd_config_dir().display(),
            lab::images::SLAPD_CONFIG
        ),
        &lab::images::old_slapd()?,
        "sh",
        "-c",
        "/usr/sbin/slapd -VV 2>&1 | head -1; slapcat -n 1 -F /etc/openldap/slapd.d",
    ])?;
    assert!(text.contains("slapd 2.4."), "{text:.200}");
    assert!(text.contains("dn: dicomDeviceName=kaapana,"), "{text:.200}");
    Ok(())
}
