//! Arguments that the engine makes of what a playbook says.

use serde_json::{Value, json};

/// What the engine hands over in place of a template's path.
#[must_use]
pub fn rendered(path: &std::path::Path, content: &str) -> Value {
    json!({"path": path, "content": content})
}
