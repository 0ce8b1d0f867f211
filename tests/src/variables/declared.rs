//! The variables that a playbook declares, as the agent tells them.

use std::path::Path;

use serde_json::Value;

use crate::agent::Agent;
use crate::error::{LabError, io_error};
use crate::migration::Running;

/// A declared variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// `str`, `path`, `int`, `bool`, `list`, `dict`.
    pub kind: String,
    /// What it may be; nothing where everything of its type may be.
    pub choices: Vec<Value>,
    /// What it is where nobody sets it; may be a template.
    pub default: Value,
    /// It has to be set.
    pub required: bool,
    /// Its value is a secret.
    pub no_log: bool,
    /// It may not change once the first effect is there.
    pub settled: bool,
}

/// Asks the agent (`variables PLAYBOOK --output json`).
///
/// # Errors
/// The agent does not know the command, or answers with something else.
pub fn declared_by(agent: &Agent) -> Result<Vec<Variable>, LabError> {
    let mut command = agent.command_without_variables(&["variables", "--output", "json"]);
    let ended = Running::start(&mut command)?.end()?;
    ended.must_have(0)?;
    read(&ended.stdout)
}

/// Reads them from a file with what the agent would print.
///
/// # Errors
/// It cannot be read.
pub fn declared_in(file: &Path) -> Result<Vec<Variable>, LabError> {
    read(&std::fs::read_to_string(file).map_err(io_error("read", file))?)
}

fn read(text: &str) -> Result<Vec<Variable>, LabError> {
    let unreadable = |why: &str| LabError::Unexpected(format!("read the variables: {why}"));
    let all: Value = serde_json::from_str(text).map_err(|error| unreadable(&error.to_string()))?;
    let plays = all["plays"]
        .as_array()
        .ok_or_else(|| unreadable("no plays"))?;
    let mut variables: Vec<Variable> = Vec::new();
    for play in plays {
        for declared in play["variables"].as_array().into_iter().flatten() {
            let variable = variable(declared).ok_or_else(|| unreadable(&declared.to_string()))?;
            if variables.iter().all(|known| known.name != variable.name) {
                variables.push(variable);
            }
        }
    }
    if variables.is_empty() {
        return Err(unreadable("the playbook declares none"));
    }
    Ok(variables)
}

fn variable(declared: &Value) -> Option<Variable> {
    let is = |name: &str| declared[name].as_bool().unwrap_or_default();
    Some(Variable {
        name: declared["name"].as_str()?.to_owned(),
        kind: declared["type"].as_str().unwrap_or("str").to_owned(),
        choices: declared["choices"].as_array().cloned().unwrap_or_default(),
        default: declared["default"].clone(),
        required: is("required"),
        no_log: is("no_log"),
        settled: is("settled"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_prints_is_read_and_every_variable_counts_once() {
        let text = r#"{"v":1,"playbook":"p.yaml","plays":[
            {"play":"One","variables":[
                {"name":"route","type":"str","choices":["guide","direct"],"default":"guide","required":false,"no_log":false,"settled":true,"description":"How"}]},
            {"play":"Two","variables":[
                {"name":"route","type":"str"},
                {"name":"image","type":"str","choices":null,"default":null,"required":true}]}]}"#;
        let read = read(text).expect("reads");
        assert_eq!(read.len(), 2);
        assert!(read[0].settled && read[0].choices.len() == 2);
        assert!(read[1].required && read[1].choices.is_empty() && read[1].default.is_null());
        super::read(r#"{"v":1,"plays":[]}"#)
            .expect_err("a playbook without variables proves nothing");
    }
}
