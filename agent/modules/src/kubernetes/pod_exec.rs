//! `k8s_exec`: a command in a container of a pod.

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::AsyncRead;

use crate::host::docker::arguments::Words;
use crate::host::error::ModuleError;
use crate::host::kubernetes::error::KubernetesError;
use crate::host::kubernetes::exec::{Streams, failed, run};
use crate::host::kubernetes::pods::Wanted;
use crate::host::with_cluster;
use crate::task::arguments::stdin_text;
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};

fn yes() -> bool {
    true
}

with_cluster! {
    /// Runs a command in a container of a running pod, without a terminal. Its status is what the server
    /// says; a connection that is cut is an error.
    pub struct K8sExec {
        /// Name of the pod. Either this or `label_selectors`.
        #[serde(default)]
        pub pod: Option<String>,
        /// Labels that exactly one running pod has. Either these or `pod`.
        #[serde(default)]
        pub label_selectors: Vec<String>,
        /// Container. It has no default: which one comes first differs between releases.
        pub container: String,
        /// Command, as one text cut into words; nothing is expanded. Either this or `argv`.
        #[serde(default)]
        pub command: Option<String>,
        /// Command, word by word. Either this or `command`.
        #[serde(default)]
        pub argv: Vec<String>,
        /// Text fed to the command; the container needs `sh` and `head` then.
        #[serde(default)]
        pub stdin: Option<String>,
        /// Add a line end to `stdin`. Default: true.
        #[serde(default = "yes")]
        pub stdin_add_newline: bool,
    }
}

impl TypedModule for K8sExec {
    const NAME: &'static str = "k8s_exec";
    const ALIASES: &'static [&'static str] = &["kubernetes.core.k8s_exec"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "*unknown*: you are asked, unless `done_when` is true";
    const CHECK_MODE: &'static str = "skipped";
    const SUMMARY: &'static str = "Runs a command in a container of a pod, without a terminal.";
    const EXAMPLE: &'static str = r#"- name: Which data the LDAP image has
  k8s_exec:
    namespace: services
    label_selectors: [app-name=ldap]
    container: ldap-container
    argv: [ls, /etc/openldap/data]
  register: data   # data.rc, data.stdout, data.stdout_lines, data.stderr, data.pod
"#;
    const FREE_FORM: Option<&'static str> = None;
}

impl K8sExec {
    fn words(&self) -> Result<Vec<String>, KubernetesError> {
        let bad = |message: &str| KubernetesError::argument("command", message);
        let words = match (&self.command, self.argv.is_empty()) {
            (Some(_), false) => return Err(bad("give either `command` or `argv`, not both")),
            (Some(text), true) => Words::Text(text.clone())
                .split("command")
                .map_err(|error| bad(&error.to_string()))?,
            (None, _) => self.argv.clone(),
        };
        if words.is_empty() {
            return Err(bad("`command` or `argv` is required"));
        }
        Ok(words)
    }

    fn wanted(&self, namespace: String) -> Result<Wanted, KubernetesError> {
        if self.pod.is_some() != self.label_selectors.is_empty() {
            return Err(KubernetesError::argument(
                "pod",
                "give either `pod` or `label_selectors`",
            ));
        }
        Ok(Wanted {
            namespace,
            name: self.pod.clone(),
            labels: self.label_selectors.clone(),
        })
    }
}

#[async_trait]
impl Module for K8sExec {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        self.words()?;
        self.wanted(String::new())?;
        Ok(Plan::CannotPredict)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let command = self.words()?;
        let (cluster, namespace) = self.cluster(ctx).await?;
        let wanted = self.wanted(namespace)?;
        let target = wanted.container(&cluster, &self.container).await?;
        let text = stdin_text(self.stdin.as_ref(), self.stdin_add_newline);
        let size = text.as_ref().map_or(0, |text| text.len() as u64);
        let mut input = text.as_ref().map(String::as_bytes);
        let mut hear = |line: &str| ctx.progress.line(ctx.redactor.text(line));
        let streams = Streams {
            stdin: input
                .as_mut()
                .map(|input| (input as &mut (dyn AsyncRead + Unpin + Send), size)),
            stdout: None,
            on_stderr: Some(&mut hear),
        };
        let end = run(&cluster, &target, &command, streams, &ctx.cancel).await?;
        for line in end.stdout.lines() {
            ctx.progress.line(ctx.redactor.text(line));
        }
        if end.rc != 0 {
            return Err(failed(&target, &command, end).into());
        }
        let (stdout, stderr) = (
            end.stdout.trim_end_matches('\n'),
            end.stderr.trim_end_matches('\n'),
        );
        Ok(Outcome::changed()
            .with("rc", end.rc)
            .with("pod", target.pod)
            .printed(stdout, stderr))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        let words = self.words()?;
        Ok(Recovery::Unknown {
            doing: format!("running `{}` in a pod", words.join(" ")),
            found: "what the command has done cannot be told from outside".into(),
        })
    }

    fn recovers_by_a_look(&self) -> bool {
        true
    }

    fn advice(&self, _ctx: &TaskContext) -> Advice {
        let namespace = self.namespace.as_deref().unwrap_or("NAMESPACE");
        let pod = self.pod.as_deref().unwrap_or("POD");
        Advice {
            look: format!(
                "whether it still runs in there, and at what it changes (`kubectl exec -n {namespace} \
                 {pod} -c {} -- …`)",
                self.container
            ),
            done: "it came to its end, or all that it changes is changed".into(),
            redo: "it no longer runs, and its first half may be repeated: it runs again from its \
                   beginning"
                .into(),
        }
    }
}
