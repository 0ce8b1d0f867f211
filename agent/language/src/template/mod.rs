//! Jinja2 templates and expressions, rendered against a [`Scope`].
//!
//! The only folder that knows the template engine. Messages are built from the kind of an error, names
//! and places; variables' values never get into them.

mod context;
mod cut;
mod error;
mod filters;
mod functions;
mod inspect;
mod lookups;
mod position;
mod predicates;
mod scope;
mod text;
mod value;
mod versions;

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value as Engine};
use serde_json::{Map, Value};

use self::context::{Context, Session};
pub use self::cut::Cut;
pub use self::scope::{Rank, Scope};
use self::value::{from_json, to_json};
use super::model::{Node, NodeKind};
use crate::source::{Location, Problem, SourceFile};

pub(crate) use self::error::undefined_name;
pub(crate) use self::inspect::Inspected;
pub(crate) use self::position::locate;
pub(crate) use self::text::is_template;
pub(crate) use self::value::kind_of;

/// What `omit` renders to; entries and arguments with this value are left out.
const OMIT: &str = "__omit_place_holder__5b6c1f7e9a0d4c3f";

/// Tells whether a rendered value is `omit`, to be left out by whoever asked for it.
#[must_use]
pub fn is_omitted(value: &Value) -> bool {
    value.as_str() == Some(OMIT)
}

/// How a template file is written, where it is not Jinja's usual way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Syntax {
    /// Takes the line end behind a block away; true where not given.
    pub trim_blocks: Option<bool>,
    /// Takes the blanks before a block away; false where not given.
    pub lstrip_blocks: Option<bool>,
    /// Begin and end of a block.
    pub block: (Option<String>, Option<String>),
    /// Begin and end of an expression.
    pub variable: (Option<String>, Option<String>),
    /// Begin and end of a comment.
    pub comment: (Option<String>, Option<String>),
}

impl Syntax {
    /// The engine's own form; `None` where two words are the same, or one is empty.
    fn config(&self) -> Option<SyntaxConfig> {
        let pair = |pair: &(Option<String>, Option<String>), begin: &str, end: &str| {
            (
                pair.0.clone().unwrap_or_else(|| begin.to_owned()),
                pair.1.clone().unwrap_or_else(|| end.to_owned()),
            )
        };
        let (block, variable, comment) = (
            pair(&self.block, "{%", "%}"),
            pair(&self.variable, "{{", "}}"),
            pair(&self.comment, "{#", "#}"),
        );
        SyntaxConfig::builder()
            .trim_blocks(self.trim_blocks.unwrap_or(true))
            .lstrip_blocks(self.lstrip_blocks.unwrap_or(false))
            .keep_trailing_newline(true)
            .block_delimiters(block.0, block.1)
            .variable_delimiters(variable.0, variable.1)
            .comment_delimiters(comment.0, comment.1)
            .build()
            .ok()
    }
}

/// The template engine with Ansible's everyday filters and tests. Cheap to clone; make it once.
#[derive(Clone)]
pub struct Templates {
    playbook: Arc<Environment<'static>>,
}

impl std::fmt::Debug for Templates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Templates")
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self::new()
    }
}

/// Steps that a template may take: some seconds. Loops in loops would otherwise go on for days, and a run
/// cannot be interrupted in the middle of one.
const MOST_STEPS: u64 = 20_000_000;

impl Templates {
    /// Makes the engine.
    #[must_use]
    pub fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Ranges of errors are kept only in this mode; what else it prints is never shown.
        environment.set_debug(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(200);
        environment.set_fuel(Some(MOST_STEPS));
        // The default delimiters are always valid; a syntax without these two would only render
        // line ends otherwise.
        if let Ok(syntax) = SyntaxConfig::builder()
            .trim_blocks(true)
            .keep_trailing_newline(true)
            .build()
        {
            environment.set_syntax(syntax);
        }
        environment.set_formatter(|output, state, value| {
            // A lone None inside text is empty; one inside a list shows.
            if value.is_none() {
                return Ok(());
            }
            minijinja::escape_formatter(output, state, value)
        });
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        filters::add_to(&mut environment);
        predicates::add_to(&mut environment);
        lookups::add_to(&mut environment);
        functions::add_to(&mut environment);
        Self {
            playbook: Arc::new(environment),
        }
    }

    /// Renders every template in a node. A lone `{{ expression }}` keeps its value's type; entries that
    /// render to `omit` are left out.
    ///
    /// # Errors
    /// The first template that cannot be rendered, with its place.
    pub fn render(&self, node: &Node, scope: &Scope) -> Result<Value, Problem> {
        whole(scope, &node.at, || {
            self.render_with(node, &self.context(scope))
        })
    }

    /// Evaluates a bare expression, as in `when`. A node that is not a text is its own value.
    ///
    /// # Errors
    /// The expression's mistake, or the undefined variable in it.
    pub fn evaluate(&self, expression: &Node, scope: &Scope) -> Result<Value, Problem> {
        match &expression.kind {
            NodeKind::String(content) => whole(scope, &expression.at, || {
                let prepared = text::prepare_expression(content);
                self.run(&prepared, &expression.at, content, &self.context(scope))
                    .and_then(|(value, _)| self.json(&value, &prepared, expression, scope))
            }),
            _ => self.render(expression, scope),
        }
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    /// As [`Templates::evaluate`]; and a value that is not a boolean is a mistake, as in ansible-core
    /// 2.21.
    pub fn condition(&self, expression: &Node, scope: &Scope) -> Result<bool, Problem> {
        match self.evaluate(expression, scope)? {
            Value::Bool(value) => Ok(value),
            other => Err(error::not_a_condition(&expression.at, kind_of(&other))),
        }
    }

    /// Renders a template file (not a playbook's value: a backslash in it is an escape).
    ///
    /// # Errors
    /// The first mistake or undefined variable, with its place in the file.
    pub fn render_file(
        &self,
        file: &Arc<SourceFile>,
        scope: &Scope,
        syntax: &Syntax,
    ) -> Result<String, Problem> {
        let context = self.context(scope);
        let at = Location {
            file: Arc::clone(file),
            start: 0,
            end: file.text.len(),
        };
        let mut environment = (*self.playbook).clone();
        match syntax.config() {
            Some(config) => environment.set_syntax(config),
            None => {
                return Err(Problem::new(
                    "playbook::template_syntax",
                    &at,
                    "the words that begin and end blocks, expressions and comments must differ",
                    "this template",
                ));
            }
        }
        whole(scope, &at, || {
            environment
                .template_from_str(&file.text)
                .and_then(|template| template.render(Engine::from_object(context.clone())))
                .map(|rendered| keep_line_ends(rendered, &file.text))
                .map_err(|failure| {
                    error::from_engine(&failure, &context, |range| {
                        let end = range.end.min(at.end);
                        Location {
                            file: Arc::clone(file),
                            start: range.start.min(end),
                            end,
                        }
                    })
                })
        })
    }

    fn context(&self, scope: &Scope) -> Context {
        Context {
            templates: self.clone(),
            scope: scope.clone(),
            session: Arc::new(Session::default()),
        }
    }

    fn render_with(&self, node: &Node, context: &Context) -> Result<Value, Problem> {
        match &node.kind {
            NodeKind::String(content) => self.render_text(content, &node.at, context),
            NodeKind::Sequence(items) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    let value = self.render_with(item, context)?;
                    if !is_omitted(&value) {
                        values.push(value);
                    }
                }
                Ok(Value::Array(values))
            }
            NodeKind::Mapping(entries) => {
                let mut map = Map::new();
                for (key, at, item) in entries {
                    let key = match self.render_text(key, at, context)? {
                        Value::String(key) => key,
                        Value::Number(number) => number.to_string(),
                        other => return Err(error::not_a_key(at, kind_of(&other))),
                    };
                    let value = self.render_with(item, context)?;
                    if !is_omitted(&value) {
                        map.insert(key, value);
                    }
                }
                Ok(Value::Object(map))
            }
            _ => Ok(node.to_value()),
        }
    }

    fn render_text(
        &self,
        content: &str,
        at: &Location,
        context: &Context,
    ) -> Result<Value, Problem> {
        if !is_template(content) {
            return Ok(Value::String(content.to_owned()));
        }
        let prepared = text::prepare(content);
        // One line end behind a lone expression is Jinja's to take away, and Ansible's to put back where
        // the value is a text: anything else keeps its type.
        if let Some(shorter) = content
            .strip_suffix('\n')
            .filter(|_| !prepared.is_expression)
            && text::prepare(shorter).is_expression
        {
            return Ok(match self.render_text(shorter, at, context)? {
                Value::String(text) if text != OMIT => Value::String(text + "\n"),
                other => other,
            });
        }
        if prepared.is_expression {
            let (value, _) = self.run(&prepared, at, content, context)?;
            return self.json_at(&value, &prepared, at, content, context);
        }
        let place = |range: std::ops::Range<usize>| {
            let start = prepared.original(range.start);
            locate(at, content, start..prepared.original(range.end))
        };
        let rendered = self
            .playbook
            .template_from_str(&prepared.source)
            .and_then(|template| template.render(Engine::from_object(context.clone())))
            .map(|rendered| keep_line_ends(rendered, content))
            .map_err(|failure| error::from_engine(&failure, context, place))?;
        if rendered.contains(OMIT) {
            return Err(error::omit_in_text(at));
        }
        Ok(Value::String(rendered))
    }

    /// Runs a prepared expression.
    fn run<'a>(
        &self,
        prepared: &'a text::Prepared,
        at: &Location,
        content: &str,
        context: &Context,
    ) -> Result<(Engine, &'a str), Problem> {
        let place = |range: std::ops::Range<usize>| {
            let start = prepared.original(range.start);
            locate(at, content, start..prepared.original(range.end))
        };
        let value = self
            .playbook
            .compile_expression(&prepared.source)
            .and_then(|expression| expression.eval(Engine::from_object(context.clone())))
            .map_err(|failure| error::from_engine(&failure, context, place))?;
        Ok((value, &prepared.source))
    }

    fn json(
        &self,
        value: &Engine,
        prepared: &text::Prepared,
        node: &Node,
        scope: &Scope,
    ) -> Result<Value, Problem> {
        let content = match &node.kind {
            NodeKind::String(content) => content.as_str(),
            _ => "",
        };
        self.json_at(value, prepared, &node.at, content, &self.context(scope))
    }

    fn json_at(
        &self,
        value: &Engine,
        prepared: &text::Prepared,
        at: &Location,
        content: &str,
        context: &Context,
    ) -> Result<Value, Problem> {
        let unfit = match to_json(value) {
            Ok(value) => return Ok(value),
            Err(unfit) => unfit,
        };
        let start = prepared.original(0);
        let whole = locate(at, content, start..prepared.original(prepared.source.len()));
        match unfit {
            value::Unfit::Other(reason) => Err(error::not_a_value(&whole, reason)),
            value::Unfit::Failed => Err(context
                .session
                .take_any()
                .unwrap_or_else(|| error::not_a_value(&whole, "a variable in it failed"))),
            // Printing it makes the engine say which name was undefined.
            value::Unfit::Undefined => {
                let source = prepared.as_template();
                let outcome = self
                    .playbook
                    .template_from_str(&source)
                    .and_then(|template| template.render(Engine::from_object(context.clone())));
                Err(match outcome {
                    Err(failure) => error::from_engine(&failure, context, |range| {
                        let start = range.start.saturating_sub(3).min(prepared.source.len());
                        let end = range.end.saturating_sub(3).min(prepared.source.len());
                        locate(
                            at,
                            content,
                            prepared.original(start)..prepared.original(end.max(start)),
                        )
                    }),
                    Ok(_) => error::undefined_inside(&whole),
                })
            }
        }
    }
}

/// Renders, and refuses what was made of a value without its secrets.
fn whole<T>(
    scope: &Scope,
    at: &Location,
    render: impl FnOnce() -> Result<T, Problem>,
) -> Result<T, Problem> {
    let before = scope.reached();
    let rendered = render();
    if scope.is_lenient() || scope.reached() == before {
        return rendered;
    }
    Err(error::secrets_cut(at))
}

/// Puts back the line ends behind a last `{% … %}`, which Jinja takes away and Ansible keeps.
fn keep_line_ends(mut rendered: String, content: &str) -> String {
    let count = |text: &str| text.bytes().rev().take_while(|byte| *byte == b'\n').count();
    let lost = count(content).saturating_sub(count(&rendered));
    rendered.extend(std::iter::repeat_n('\n', lost));
    rendered
}

impl Context {
    /// Renders a lazily rendered variable.
    fn render_variable(&self, node: &Node) -> Result<Engine, Problem> {
        let value = self.templates.render_with(node, self)?;
        Ok(from_json(&value))
    }
}

#[cfg(test)]
mod tests;
