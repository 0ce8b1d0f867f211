//! A real slapd in a container for the tests, from the lab's image.

use std::path::PathBuf;

use lab::directory::{updates, vendor_data};
use lab::images::new_slapd;
use lab::slapd::{Slapd, SlapdOptions};
use serde_json::Value;

use crate::host::docker::service::ServiceHandle;
use crate::host::error::ModuleError;
use crate::registry;
use crate::task::context::TaskContext;
use crate::task::module::{Module, Outcome, Plan};

pub const BASE: &str = "dc=dcm4che,dc=org";
const PASSWORD: &str = "hunter2-long";

/// A slapd with the lab's 5.26 directory, and a context whose service it is.
pub struct Rig {
    pub slapd: Slapd,
    pub ctx: TaskContext,
    pub dir: tempfile::TempDir,
}

impl Rig {
    pub fn new() -> Self {
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

    pub async fn run(&self, name: &str, arguments: Value) -> Result<Outcome, ModuleError> {
        let module = module(name, arguments);
        let intent = module.prepare(&self.ctx).await?;
        module.apply(&self.ctx, &intent).await
    }

    pub async fn check(&self, name: &str, arguments: Value) -> Plan {
        module(name, arguments)
            .check(&self.ctx)
            .await
            .expect("checked")
    }

    /// What `ldapsearch` finds of one entry: its lines, or nothing.
    pub fn look(&self, dn: &str) -> Vec<String> {
        let script =
            format!(". setenv.sh; as_root ldapsearch -LLL -o ldif-wrap=no -s base -b '{dn}'");
        let (code, text) = self.slapd.run(&["sh", "-c", &script]).expect("ldapsearch");
        match code {
            Some(0) => text.lines().map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        std::fs::write(&path, text).expect("write");
        path
    }

    /// Puts the lab's files with changes into the folder of the test.
    pub fn updates(&self) -> Vec<String> {
        std::fs::write(self.dir.path().join("vendor-data.zip"), vendor_data()).expect("write");
        let files = updates();
        for (path, text) in &files {
            self.file(path, text);
        }
        files.into_iter().map(|(path, _)| path).collect()
    }
}

pub fn module(name: &str, arguments: Value) -> Box<dyn Module> {
    (registry::find(name).expect("module").build)(arguments).expect("arguments")
}

pub fn failed(outcome: Result<Outcome, ModuleError>) -> (String, String, Value) {
    match outcome {
        Err(ModuleError::Failed(failure)) => (
            failure.code().to_owned(),
            failure.to_string(),
            failure.result().into(),
        ),
        other => panic!("a failure is expected: {other:?}"),
    }
}
