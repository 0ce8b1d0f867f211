//! The case about the ranks of variables: every pair of places that may define one, in both orders where
//! there are two, is asked for its winner. Generated, so that no pair is forgotten.

use std::collections::BTreeMap;

/// Where a variable may be defined. Its own name is its value there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Play,
    Prompt,
    Files,
    Block,
    Task,
    Import,
    IncludeVars,
    SetFact,
    Register,
    Include,
    Loop,
    Extra,
}

use Rank::{
    Block, Extra, Files, Import, Include, IncludeVars, Loop, Play, Prompt, Register, SetFact, Task,
};

const ALL: [Rank; 12] = [
    Play,
    Prompt,
    Files,
    Block,
    Task,
    Import,
    IncludeVars,
    SetFact,
    Register,
    Include,
    Loop,
    Extra,
];

impl Rank {
    fn word(self) -> &'static str {
        match self {
            Play => "play",
            Prompt => "prompt",
            Files => "files",
            Block => "block",
            Task => "task",
            Import => "import",
            IncludeVars => "include_vars",
            SetFact => "set_fact",
            Register => "register",
            Include => "include",
            Loop => "loop",
            Extra => "extra",
        }
    }

    /// Defined by a task, at a time.
    fn is_timed(self) -> bool {
        matches!(self, IncludeVars | SetFact | Register)
    }

    /// Defined for what is inside.
    fn is_around(self) -> bool {
        matches!(self, Block | Import | Include)
    }

    /// The task that defines it now.
    fn task(self, name: &str) -> String {
        match self {
            SetFact => format!("- set_fact: {{{name}: set_fact}}\n"),
            Register => format!("- command: echo register\n  register: {name}\n"),
            _ => "- include_vars: vars/rank-second.yml\n".to_owned(),
        }
    }
}

/// A pair, and the variable that both define: the first before the second, or around it.
struct Pair {
    first: Rank,
    second: Rank,
    name: String,
}

impl Pair {
    fn all() -> Vec<Self> {
        let mut pairs = Vec::new();
        for first in ALL {
            for second in ALL {
                let two_orders = first.is_timed()
                    || second.is_timed()
                    || (first.is_around() && second.is_around());
                if first != second && (two_orders || first < second) {
                    let name = format!("r_{}_{}", first.word(), second.word());
                    pairs.push(Self {
                        first,
                        second,
                        name,
                    });
                }
            }
        }
        pairs
    }

    fn has(&self, rank: Rank) -> bool {
        self.first == rank || self.second == rank
    }

    /// Defined by a task inside of what the first is around.
    fn inside(&self) -> Option<Rank> {
        (self.first.is_around() && self.second.is_timed()).then_some(self.second)
    }

    /// The tasks that ask for the winner, and the files that they include.
    fn asks(&self, files: &mut BTreeMap<String, String>) -> String {
        let Self { name, .. } = self;
        let mut text = format!(
            "- copy: {{content: \"{{{{ {name}.stdout | default({name}) }}}}\\n\", dest: \"{{{{ root \
             }}}}/{name}\", mode: \"0644\"}}\n"
        );
        if self.has(Task) {
            text.push_str(&format!("  vars: {{{name}: task}}\n"));
        }
        if self.has(Loop) {
            text.push_str(&format!(
                "  loop: [loop]\n  loop_control: {{loop_var: {name}}}\n"
            ));
        }
        if let Some(rank) = self.inside() {
            text.insert_str(0, &rank.task(name));
        }
        // From inside to outside.
        for rank in [self.second, self.first] {
            text = match rank {
                Block => format!(
                    "- vars: {{{name}: block}}\n  block:\n{}",
                    indented(&text, 4)
                ),
                Import | Include => {
                    let word = rank.word();
                    let file = format!("tasks/rank-{word}-{name}.yml");
                    files.insert(file.clone(), text);
                    format!("- {word}_tasks: {file}\n  vars: {{{name}: {word}}}\n")
                }
                _ => text,
            };
        }
        text
    }
}

fn indented(text: &str, by: usize) -> String {
    text.lines()
        .map(|line| format!("{}{line}\n", " ".repeat(by)))
        .collect()
}

/// The case's files, by their paths in the folder of the cases.
#[must_use]
pub fn files() -> BTreeMap<String, String> {
    let pairs = Pair::all();
    let mut files = BTreeMap::new();
    let of = |rank: Rank, wanted: &dyn Fn(&Pair) -> bool| -> String {
        pairs
            .iter()
            .filter(|pair| pair.has(rank) && wanted(pair))
            .map(|pair| format!("{}: {}\n", pair.name, rank.word()))
            .collect()
    };
    let mut text =
        "# run: -e @vars/rank-extra.yml\n- hosts: localhost\n  gather_facts: false\n".to_owned();
    text.push_str("  vars:\n");
    text.push_str(&indented(&of(Play, &|_| true), 4));
    text.push_str("  vars_prompt:\n");
    for pair in pairs.iter().filter(|pair| pair.has(Prompt)) {
        let name = &pair.name;
        text.push_str(&format!(
            "    - {{name: {name}, default: prompt, private: false}}\n"
        ));
    }
    text.push_str("  vars_files: [vars/rank-files.yml]\n  tasks:\n");
    let mut tasks = "- include_vars: vars/rank-first.yml\n".to_owned();
    for pair in &pairs {
        if matches!(pair.first, SetFact | Register) {
            tasks.push_str(&pair.first.task(&pair.name));
        }
    }
    for pair in &pairs {
        let outside = pair.inside().is_none();
        if outside && matches!(pair.second, SetFact | Register) {
            tasks.push_str(&pair.second.task(&pair.name));
        }
    }
    tasks.push_str(&IncludeVars.task(""));
    for pair in &pairs {
        tasks.push_str(&pair.asks(&mut files));
    }
    text.push_str(&indented(&tasks, 4));
    let first = of(IncludeVars, &|pair| pair.first == IncludeVars);
    let second = of(IncludeVars, &|pair| pair.second == IncludeVars);
    files.insert("vars-ranks.yaml".to_owned(), text);
    files.insert("vars/rank-files.yml".to_owned(), of(Files, &|_| true));
    files.insert("vars/rank-extra.yml".to_owned(), of(Extra, &|_| true));
    files.insert("vars/rank-first.yml".to_owned(), first);
    files.insert("vars/rank-second.yml".to_owned(), second);
    files
}
