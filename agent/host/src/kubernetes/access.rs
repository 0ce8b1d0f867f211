//! Where a cluster is, and with which credentials: the files that kubectl would read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::error::KubernetesError;

/// Where microk8s keeps the administrator's kubeconfig; `microk8s.kubectl` reads it.
const MICROK8S: &str = "/var/snap/microk8s/current/credentials/client.config";

/// What the process that called the agent knows of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterEnvironment {
    /// `$KUBECONFIG`: a list of files.
    pub kubeconfig: Option<OsString>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// Whether the agent runs in a pod.
    pub in_cluster: bool,
}

/// Which cluster a task means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig that was named.
    pub kubeconfig: Option<PathBuf>,
    /// A context in it. Default: its current one.
    pub context: Option<String>,
}

/// Where the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// These files, merged: what stands in the first one holds.
    Files(Vec<PathBuf>),
    /// The service account of the pod that the agent runs in.
    ServiceAccount,
}

impl Access {
    /// Finds the credentials: those that the task names, else `$KUBECONFIG` of the task, else that of the
    /// process, else `~/.kube/config`, else the pod's own, else microk8s's.
    ///
    /// # Errors
    /// There are none.
    pub fn source(
        &self,
        task: &BTreeMap<String, String>,
        environment: &ClusterEnvironment,
    ) -> Result<Source, KubernetesError> {
        let mut looked_at = Vec::new();
        let mut present = |files: Vec<PathBuf>| {
            let (there, missing): (Vec<_>, Vec<_>) =
                files.into_iter().partition(|file| file.exists());
            looked_at.extend(missing);
            (!there.is_empty()).then_some(Source::Files(there))
        };
        let is_given = |list: &OsString| !list.is_empty();
        let of_task = task.get("KUBECONFIG").map(OsString::from).filter(is_given);
        let listed = of_task.or_else(|| environment.kubeconfig.clone().filter(is_given));
        if let Some(file) = &self.kubeconfig {
            return present(vec![file.clone()]).ok_or(KubernetesError::NoKubeconfig { looked_at });
        }
        if let Some(list) = listed {
            let files = std::env::split_paths(&list).filter(|file| !file.as_os_str().is_empty());
            return present(files.collect()).ok_or(KubernetesError::NoKubeconfig { looked_at });
        }
        let own = environment
            .home
            .iter()
            .map(|home| home.join(".kube/config"));
        if let Some(found) = present(own.collect()) {
            return Ok(found);
        }
        if environment.in_cluster {
            return Ok(Source::ServiceAccount);
        }
        present(vec![MICROK8S.into()]).ok_or(KubernetesError::NoKubeconfig { looked_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ModuleFailure;

    #[test]
    fn files_are_found_as_kubectl_finds_them() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path(".kube")).expect("mkdir");
        for name in ["a", "b", "named", ".kube/config"] {
            std::fs::write(path(name), "").expect("write");
        }
        let mut environment = ClusterEnvironment {
            home: Some(dir.path().into()),
            ..ClusterEnvironment::default()
        };
        let none = BTreeMap::new();
        let access = Access::default();
        let files = |names: &[&str]| Source::Files(names.iter().map(|name| path(name)).collect());
        let found = access.source(&none, &environment);
        assert_eq!(found.expect("found"), files(&[".kube/config"]));

        // As kubectl: files of the list that are not there are passed over.
        let list = std::env::join_paths([path("a"), path("gone"), path("b")]).expect("list");
        environment.kubeconfig = Some(list);
        let found = access.source(&none, &environment);
        assert_eq!(found.expect("found"), files(&["a", "b"]));
        let task = [("KUBECONFIG".to_owned(), path("b").display().to_string())].into();
        let found = access.source(&task, &environment);
        assert_eq!(found.expect("found"), files(&["b"]));
        let named = Access {
            kubeconfig: Some(path("named")),
            context: None,
        };
        let found = named.source(&task, &environment);
        assert_eq!(found.expect("found"), files(&["named"]));
    }

    #[test]
    fn no_file_is_told_with_all_places_and_what_to_do() {
        let dir = tempfile::tempdir().expect("temp dir");
        let environment = ClusterEnvironment {
            home: Some(dir.path().into()),
            ..ClusterEnvironment::default()
        };
        let access = Access::default();
        let found = access.source(&BTreeMap::new(), &environment);
        if std::path::Path::new(MICROK8S).exists() {
            assert_eq!(found.expect("found"), Source::Files(vec![MICROK8S.into()]));
            return;
        }
        let error = found.expect_err("nothing is there");
        assert_eq!(error.code(), "kubernetes::no_kubeconfig");
        let text = error.to_string();
        assert!(
            text.contains(".kube/config") && text.contains(MICROK8S),
            "{text}"
        );
        assert!(error.help().is_some_and(|help| help.contains("microk8s")));

        let in_cluster = ClusterEnvironment {
            in_cluster: true,
            ..environment
        };
        let found = access.source(&BTreeMap::new(), &in_cluster);
        assert_eq!(found.expect("found"), Source::ServiceAccount);
    }
}
