//! `docker_network`: a network as described, and who is on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::{
    Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
    NetworkInspect,
};
use bollard::query_parameters::InspectNetworkOptions;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::host::docker::error::DockerError;
use crate::host::docker::lifecycle;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::presence::Presence;

/// Keeps a network as described: made, or absent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerNetwork {
    /// Its name.
    #[serde(alias = "network_name")]
    #[schemars(extend("aliases" = ["network_name"]))]
    pub name: String,
    /// `present` (default) or `absent`.
    #[serde(default)]
    pub state: Presence,
    /// Driver. Default: `bridge`.
    #[serde(default)]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(default)]
    pub driver_options: BTreeMap<String, String>,
    /// Address ranges; each with `subnet`, and where wanted `gateway`, `iprange`, `aux_addresses`.
    #[serde(default)]
    pub ipam_config: Vec<AddressRange>,
    /// Nothing leaves it. Default: false.
    #[serde(default)]
    pub internal: Option<bool>,
    /// Containers of a swarm's nodes may join by hand. Default: false.
    #[serde(default)]
    pub attachable: Option<bool>,
    /// IPv6 addresses as well. Default: false.
    #[serde(default)]
    pub enable_ipv6: Option<bool>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Names of the containers that are on it. Others are taken off, unless `appends`.
    #[serde(default, alias = "containers")]
    #[schemars(extend("aliases" = ["containers"]))]
    pub connected: Option<Vec<String>>,
    /// Leaves containers on it that `connected` does not name. Default: false.
    #[serde(default, alias = "incremental")]
    #[schemars(extend("aliases" = ["incremental"]))]
    pub appends: bool,
    /// Makes it anew even if it is as described; with `absent`, takes containers off first. Default:
    /// false.
    #[serde(default)]
    pub force: bool,
}

/// One range of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressRange {
    /// `172.28.0.0/16`.
    pub subnet: Option<String>,
    /// Part of `subnet` that containers get addresses of.
    #[serde(default)]
    pub iprange: Option<String>,
    /// The host's address in it.
    #[serde(default)]
    pub gateway: Option<String>,
    /// Addresses that no container gets, by name.
    #[serde(default)]
    pub aux_addresses: BTreeMap<String, String>,
}

/// What has to be done, in this order.
#[derive(Default)]
struct Steps {
    disconnect: Vec<String>,
    remove: bool,
    create: bool,
    connect: Vec<String>,
    lines: Vec<String>,
}

async fn inspect(docker: &Docker, name: &str) -> Result<Option<NetworkInspect>, DockerError> {
    let answer = docker
        .inspect_network(name, None::<InspectNetworkOptions>)
        .await;
    let found = DockerError::or_absent(answer, format!("inspect network {name}"))?;
    // Docker takes the start of an id for a name as well.
    Ok(found.filter(|found| found.name.as_deref() == Some(name)))
}

/// Names of the containers on it.
fn members(found: &NetworkInspect) -> BTreeSet<String> {
    let containers = found.containers.iter().flatten();
    containers
        .filter_map(|(_, container)| container.name.clone())
        .collect()
}

impl DockerNetwork {
    /// What about the network itself is not as described; containers are looked at elsewhere.
    fn differences(&self, found: &NetworkInspect) -> Vec<String> {
        let mut lines = Vec::new();
        let mut compare = |what: &str, has: String, wanted: Option<String>| {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != has) {
                lines.push(format!("{what}: {has} instead of {wanted}"));
            }
        };
        let flag = |value: Option<bool>| value.unwrap_or_default().to_string();
        compare(
            "driver",
            found.driver.clone().unwrap_or_default(),
            self.driver.clone(),
        );
        let told = |value: Option<bool>| value.map(|value| value.to_string());
        compare("internal", flag(found.internal), told(self.internal));
        compare("attachable", flag(found.attachable), told(self.attachable));
        compare(
            "enable_ipv6",
            flag(found.enable_ipv6),
            told(self.enable_ipv6),
        );
        let has = |map: &Option<HashMap<String, String>>, name: &str| {
            let value = map.as_ref().and_then(|map| map.get(name).cloned());
            value.unwrap_or_default()
        };
        for (name, wanted) in &self.driver_options {
            let what = format!("driver_options.{name}");
            compare(&what, has(&found.options, name), Some(wanted.clone()));
        }
        for (name, wanted) in &self.labels {
            let what = format!("labels.{name}");
            compare(&what, has(&found.labels, name), Some(wanted.clone()));
        }
        let ranges = found.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
        for wanted in &self.ipam_config {
            let is_there = ranges.is_some_and(|all| all.iter().any(|has| wanted.fits(has)));
            if !is_there {
                let subnet = wanted.subnet.as_deref().unwrap_or("any subnet");
                lines.push(format!("ipam_config: nothing fits {subnet}"));
            }
        }
        lines
    }

    /// What has to be done; `before` is who was on it when this began. An attempt that was killed while it
    /// was making the network anew has taken them off.
    async fn steps(
        &self,
        docker: &Docker,
        before: &BTreeSet<String>,
    ) -> Result<Steps, DockerError> {
        let name = &self.name;
        let found = inspect(docker, name).await?;
        let mut steps = Steps::default();
        let has = found.as_ref().map(members).unwrap_or_default();
        if self.state == Presence::Absent {
            if found.is_some() {
                steps.remove = true;
                if self.force {
                    steps.disconnect = has.into_iter().collect();
                }
                steps.lines.push(format!("remove network {name}"));
            }
            return Ok(steps);
        }
        let mut wanted: BTreeSet<String> = self.connected.iter().flatten().cloned().collect();
        // Whoever was on it stays on it, a new one included, unless the list says otherwise.
        if self.connected.is_none() || self.appends {
            wanted.extend(before.iter().cloned());
        }
        match &found {
            None => {
                steps.create = true;
                steps.lines.push(format!("create network {name}"));
            }
            Some(found) => {
                let mut different = self.differences(found);
                if self.force {
                    different.push("force was asked for".into());
                }
                if different.is_empty() {
                    if self.connected.is_some() && !self.appends {
                        steps.disconnect = has.difference(&wanted).cloned().collect();
                    }
                    wanted.retain(|container| !has.contains(container));
                } else {
                    steps.disconnect = has.into_iter().collect();
                    steps.remove = true;
                    steps.create = true;
                    steps.lines = different;
                }
            }
        }
        if !steps.remove {
            let off = |container| format!("take {container} off {name}");
            steps.lines.extend(steps.disconnect.iter().map(off));
        }
        let on = |container| format!("connect {container} to {name}");
        steps.lines.extend(wanted.iter().map(on));
        steps.connect = wanted.into_iter().collect();
        Ok(steps)
    }

    fn request(&self) -> NetworkCreateRequest {
        let map = |map: &BTreeMap<String, String>| {
            let copy: HashMap<String, String> = map.clone().into_iter().collect();
            Some(copy).filter(|copy| !copy.is_empty())
        };
        let ranges = self.ipam_config.iter().map(AddressRange::config).collect();
        NetworkCreateRequest {
            name: self.name.clone(),
            driver: Some(self.driver.clone().unwrap_or_else(|| "bridge".into())),
            internal: self.internal,
            attachable: self.attachable,
            enable_ipv6: self.enable_ipv6,
            options: map(&self.driver_options),
            labels: map(&self.labels),
            ipam: Some(Ipam {
                config: Some(ranges),
                ..Ipam::default()
            })
            .filter(|_| !self.ipam_config.is_empty()),
            ..NetworkCreateRequest::default()
        }
    }
}

impl AddressRange {
    fn config(&self) -> IpamConfig {
        let aux: HashMap<String, String> = self.aux_addresses.clone().into_iter().collect();
        IpamConfig {
            subnet: self.subnet.clone(),
            ip_range: self.iprange.clone(),
            gateway: self.gateway.clone(),
            auxiliary_addresses: Some(aux).filter(|aux| !aux.is_empty()),
        }
    }

    /// Tells whether a range of Docker's has all that is asked for.
    fn fits(&self, has: &IpamConfig) -> bool {
        let same =
            |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
        let aux = has.auxiliary_addresses.as_ref();
        same(&self.subnet, &has.subnet)
            && same(&self.iprange, &has.ip_range)
            && same(&self.gateway, &has.gateway)
            && self
                .aux_addresses
                .iter()
                .all(|(name, address)| aux.is_some_and(|aux| aux.get(name) == Some(address)))
    }
}

/// Who was on it, as it was journaled.
fn members_before(intent: &Value) -> BTreeSet<String> {
    let names = intent["members"].as_array().into_iter().flatten();
    names
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

impl DockerNetwork {
    async fn converge(
        &self,
        ctx: &TaskContext,
        before: &BTreeSet<String>,
    ) -> Result<Outcome, DockerError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let name = self.name.as_str();
        let steps = self.steps(&docker, before).await?;
        for container in &steps.disconnect {
            let request = NetworkDisconnectRequest {
                container: container.clone(),
                force: None,
            };
            let action = format!("take container {container} off network {name}");
            docker
                .disconnect_network(name, request)
                .await
                .map_err(DockerError::api(action))?;
        }
        if steps.remove {
            docker
                .remove_network(name)
                .await
                .map_err(DockerError::api(format!("remove network {name}")))?;
        }
        if steps.create {
            docker
                .create_network(self.request())
                .await
                .map_err(DockerError::api(format!("create network {name}")))?;
        }
        for container in &steps.connect {
            let request = NetworkConnectRequest {
                container: container.clone(),
                endpoint_config: None,
            };
            let action = format!("connect container {container} to network {name}");
            docker
                .connect_network(name, request)
                .await
                .map_err(DockerError::api(action))?;
        }
        let found = inspect(&docker, name).await?;
        let shown = serde_json::to_value(&found).unwrap_or_default();
        Ok(Outcome::of_steps(&steps.lines).with("network", shown))
    }
}

#[async_trait]
impl Module for DockerNetwork {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let steps = self.steps(&docker, &BTreeSet::new()).await?;
        Ok(Plan::from(steps.lines))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let found = inspect(&docker, &self.name).await?;
        Ok(json!({"members": found.as_ref().map(members).unwrap_or_default()}))
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        Ok(self.converge(ctx, &members_before(intent)).await?)
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        if self.state == Presence::Absent {
            return Ok(Recovery::NotDone);
        }
        // Ended here and not by a new attempt, which would take the network for one that nobody was on.
        let docker = crate::host::docker::client::connect(ctx).await?;
        let mut before = BTreeSet::new();
        for container in members_before(intent) {
            if lifecycle::inspect(&docker, &container).await?.is_some() {
                before.insert(container);
            }
        }
        let mut outcome = self.converge(ctx, &before).await?;
        outcome.changed = true;
        Ok(Recovery::Done(outcome))
    }
}

impl TypedModule for DockerNetwork {
    const NAME: &'static str = "docker_network";
    const ALIASES: &'static [&'static str] = &["community.docker.docker_network"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "finishes what was begun: whoever was on a network that is made anew is on the new one";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Keeps a network as described: made, or absent.";
    const EXAMPLE: &'static str = r#"- name: A network that nothing leaves
  docker_network:
    name: migration
    internal: true
    connected: [pacs-old, pacs-new]
  register: net   # net.network.Id, net.network.IPAM
"#;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_has_more_than_asked_for_fits() {
        let has = IpamConfig {
            subnet: Some("10.9.0.0/24".into()),
            gateway: Some("10.9.0.1".into()),
            ..IpamConfig::default()
        };
        let wanted = |subnet: &str| AddressRange {
            subnet: Some(subnet.into()),
            ..AddressRange::default()
        };
        assert!(wanted("10.9.0.0/24").fits(&has));
        assert!(!wanted("10.8.0.0/24").fits(&has));
        let named = AddressRange {
            aux_addresses: [("printer".to_owned(), "10.9.0.7".to_owned())].into(),
            ..wanted("10.9.0.0/24")
        };
        assert!(!named.fits(&has));
    }
}
