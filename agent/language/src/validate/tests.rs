//! What reading and validating promise, one playbook a case.

use serde_json::json;

use super::{KnownNames, check};
use crate::fixtures::{checked, folder, lines, options, wrong};
use crate::model::{Item, NodeKind};
use crate::source::Problem;

/// A play with these tasks; its first task begins in line 3, column 5.
fn play(tasks: &str) -> String {
    let mut text = "- hosts: all\n  tasks:\n".to_owned();
    for line in tasks.trim_start_matches('\n').lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn wrong_tasks(tasks: &str) -> Vec<String> {
    wrong(&play(tasks))
}

fn assert_wrong(tasks: &str, expected: &[&str]) {
    assert_eq!(wrong_tasks(tasks), expected, "{tasks}");
}

#[test]
fn a_good_playbook_has_no_problems() {
    let playbook = r#"
- name: Migrate
  hosts: localhost
  gather_facts: false
  vars:
    base: /srv
    target: "{{ base }}/{{ sub }}"
    per_item: "{{ item }}"
  vars_files: ["{{ kind }}.yml"]
  secrets: [password]
  tags: [all]
  module_defaults:
    ansible.builtin.file: {state: directory}
  pre_tasks:
    - assert: {that: [base is defined, "target != ''"]}
  tasks:
    - name: Look
      command: ls -l creates=/x
      args: {chdir: /tmp}
      register: out
      changed_when: out.rc == 0 and later is defined
    - set_fact: {later: 1, cacheable: yes}
    - name: Make
      ansible.builtin.file: path={{ target }} mode=0755
      when:
        - maybe is defined
        - maybe.x
      loop: [a, b]
      loop_control: {loop_var: name, index_var: i, label: "{{ name }}"}
      notify: Say {{ name }}
    - name: Both
      vars: {local: 1}
      when: yes
      block:
        - file: {path: "{{ local }}", recurse: "{{ x | default(false) }}"}
          notify: [Restart, told]
      rescue:
        - command: echo "{{ ansible_failed_result.msg }}"
      always:
        - import_tasks: more.yml
  handlers:
    - name: Restart
      command: restart
    - command: tell
      listen: told
"#;
    let found = checked(&[
        ("p.yml", &playbook.replace("kind }}", "base | basename }}")),
        ("srv.yml", "sub: x\npassword: p\n"),
        ("more.yml", "- name: Inner\n  command: echo {{ later }}\n"),
    ])
    .map_err(|problems| lines(&problems));
    let found = found.expect("it is good");
    let play = &found.playbook.plays[0];
    assert_eq!(play.vars_files.len(), 1);
    assert_eq!(found.playbook.sources.len(), 3);
    let Item::Task(look) = &play.items[1] else {
        panic!("a task")
    };
    assert_eq!(
        look.args.to_value(),
        json!({"cmd": "ls -l", "creates": "/x", "chdir": "/tmp"})
    );
    let Item::Task(make) = &play.items[3] else {
        panic!("a task")
    };
    assert_eq!(
        make.args.to_value(),
        json!({"path": "{{ target }}", "mode": "0755", "state": "directory"})
    );
    assert_eq!(make.common.tags, ["all"]);
    let Item::Block(block) = &play.items[4] else {
        panic!("a block")
    };
    let Item::Block(included) = &block.always[0] else {
        panic!("an include")
    };
    assert_eq!(included.common.name.as_deref(), Some("more.yml"));
    assert!(matches!(&included.block[0], Item::Task(task) if task.common.tags == ["all"]));
    // Two handlers are one-way; the second has no name.
    assert!(found.warnings.len() <= 3, "{:?}", lines(&found.warnings));
}

#[test]
fn wrong_keywords_and_modules_get_a_suggestion() {
    assert_wrong(
        "- comand: ls",
        &["3:7 `comand` is neither a module nor a keyword of a task = did you mean `command`?"],
    );
    assert_wrong(
        "- command: ls\n  whne: x",
        &["4:7 `whne` is neither a module nor a keyword of a task = did you mean `when`?"],
    );
    assert_wrong(
        "- command: ls\n  file: {path: /x}",
        &["4:7 the task has two modules, `command` and `file` = make it two tasks"],
    );
    assert_wrong(
        "- name: nothing",
        &["3:7 the task does not say what to do = add a module, or `block` with tasks"],
    );
    assert_wrong(
        "- command: ls\n  async: 10\n  delegate_to: x",
        &[
            "4:7 `async` is not supported here = leave it out: long work shows its progress and \
             survives a lost connection",
            "5:20 only `delegate_to: localhost` is supported here = the agent works on the host it \
             runs on",
        ],
    );
    assert_wrong(
        "- action: {a: 1}",
        &[
            "3:7 `action` does not say which module = write the module's name as the key: `copy: {…}`",
        ],
    );
    assert_wrong(
        "- command: ls\n  with_lines: date",
        &[
            "4:7 `with_lines` is not supported here = use `loop` with a list; `lookup('file', …)` reads a file",
        ],
    );
    assert_wrong(
        "- block: []\n  loop: [1]",
        &["4:7 a block cannot have `loop` = put it on the tasks inside"],
    );
    assert_wrong(
        "- command: ls\n  rescue: []",
        &["4:7 `rescue` stands without a `block` = put the tasks under `block:`"],
    );
    assert_eq!(
        wrong("- hosts: all\n  task: []\n  roles: [x]\n"),
        [
            "2:3 `task` is not a keyword of a play = did you mean `tasks`?",
            "3:3 `roles` is not supported here = use `import_tasks` with the file of the role's \
             tasks",
        ]
    );
    assert_eq!(
        wrong("- tasks: []\n"),
        ["1:3 the play does not say on which hosts it runs = add `hosts: localhost`"]
    );
    assert_eq!(
        wrong("hosts: all\n"),
        [
            "1:1 a playbook must be a list of plays, and is a mapping = begin with `- name: …` and \
          `hosts: …`"
        ]
    );
}

#[test]
fn wrong_values_of_keywords_are_refused() {
    assert_wrong(
        "- command: ls\n  register: a-b",
        &[
            "4:17 `a-b` cannot be a variable's name = use letters, digits and `_`, and begin with a \
           letter",
        ],
    );
    assert_wrong(
        "- command: ls\n  id: x{{ y }}",
        &["4:11 `id` cannot hold a template = write a fixed text"],
    );
    assert_wrong(
        "- command: ls\n  no_log: maybe",
        &["4:15 `no_log` must be true or false, and is a text"],
    );
    assert_wrong(
        "- command: ls\n  when: {a: b}",
        &["4:13 `when` must be an expression or a list of expressions, and is a mapping"],
    );
    assert_wrong(
        "- command: ls\n  loop: files",
        &[
            "4:13 `loop` must be a list or a template, and is a text = a variable needs braces: \
           \"{{ files }}\"",
        ],
    );
    assert_wrong(
        "- command: ls\n  retries: many",
        &["4:16 this must be a number, zero or more"],
    );
    assert_wrong(
        "- just text",
        &["3:7 a task must be a mapping, and is a text"],
    );
}

#[test]
fn wrong_arguments_are_found_at_their_place() {
    assert_wrong(
        "- file: {path: /x, stat: absent}",
        &["3:24 `file` has no argument `stat` = did you mean `state`?"],
    );
    assert_wrong(
        "- file:\n    state: absent",
        &[
            "3:7 `file` needs the argument `path` = for example:\nfile: {path: /srv, state: \
           directory}",
        ],
    );
    assert_wrong(
        "- file: {path: /x, state: abset}",
        &["3:31 `state` of `file` must be one of file, directory, absent (did you mean `absent`?)"],
    );
    assert_wrong(
        "- file: {path: /x, recurse: perhaps, depth: x}",
        &[
            "3:33 `recurse` of `file` must be true or false, and is a text",
            "3:49 `depth` of `file` must be an integer, and is a text",
        ],
    );
    assert_wrong(
        "- file: {path: /x, depth: -1}",
        &["3:31 `depth` of `file` must be at least 0"],
    );
    assert_wrong(
        "- file: {path: /x, nested: {}}",
        &[
            "3:32 `file` needs the argument `nested.size` = for example:\nfile: {path: /srv, state: \
           directory}",
        ],
    );
    assert_wrong(
        "- file: {path: /x, nested: {size: 1, siez: 2}, names: [a, [b]]}",
        &[
            "3:42 `file` has no argument `nested.siez` = did you mean `size`?",
            "3:63 an item in the arguments of `file` must be a text, and is a list",
        ],
    );
    assert_wrong(
        "- file: path=/x bogus",
        &["3:13 `file` takes named arguments = for example:\nfile: {path: /srv, state: directory}"],
    );
    assert_wrong(
        "- file: {path: /x, recurse: 'yes', depth: '3', names: 'a,b', mode: 0644, env: {A: 1}}",
        &[],
    );
}

#[test]
fn undefined_names_and_bad_templates_are_found_before_anything_runs() {
    assert_wrong(
        "- command: echo {{ nix }}\n  when: foo == 1",
        &["3:24 `nix` is undefined", "4:13 `foo` is undefined"],
    );
    assert_wrong(
        "- command: ls\n  register: result\n- command: echo {{ reslut.rc }}",
        &["5:24 `reslut` is undefined = did you mean `result`?"],
    );
    assert_wrong(
        "- command: echo {{ item }}",
        &["3:24 `item` is undefined = `item` is there in a task with `loop` only"],
    );
    assert_wrong(
        "- command: >-\n    echo\n    {{ a +  }}",
        &["5:17 the template is not valid: unexpected end of variable block"],
    );
    assert_wrong(
        "- command: echo {{ 'x' | basenam }}",
        &["3:30 there is no filter `basenam` = did you mean `basename`?"],
    );
    assert_wrong(
        "- command: echo\n  when: \"'x' is chnged\"",
        &["4:21 there is no test `chnged` = did you mean `changed`?"],
    );
    assert_wrong("- assert: {that: nix == 1}", &["3:22 `nix` is undefined"]);
    assert_wrong(
        "- command: echo {{ nix | default('x') }} {{ y.z is defined }}",
        &[],
    );
    assert_wrong(
        "- vars: {a: 1}\n  block:\n    - command: echo {{ a }}\n- command: echo {{ a }}",
        &["6:24 `a` is undefined"],
    );
    assert_eq!(
        wrong("- hosts: all\n  vars: {a: '{{ b }}'}\n  secrets: [pasword]\n  tasks: []\n"),
        [
            "2:17 `b` is undefined",
            "3:13 `secrets` names `pasword`, which nothing defines",
        ]
    );
}

#[test]
fn ids_services_and_handlers_are_checked() {
    assert_wrong(
        "- command: a\n  id: one\n- command: b\n  id: one",
        &[
            "6:11 two tasks have the id `one`, the first at P:4:11 = give each task an id of its own",
        ],
    );
    assert_wrong(
        "- command: a\n  notify: restart\n",
        &["4:15 there is no handler `restart`"],
    );
    assert_wrong(
        "- services:\n    - {name: db, docker_container: {image: x}}\n    - {name: db, \
         docker_container: {image: x}, redy: {}}\n    - {name: c}\n    - {name: d, \
         docker_container: {image: x}, ready: {comand: x}}\n  block: []",
        &[
            "5:11 the service `db` stands twice in the play, first at P:4:11 = give each service \
             a name of its own",
            "5:52 `redy` is not a keyword of a service = did you mean `ready`?",
            "6:11 the service has no `docker_container` = a service has a `name`, a \
             `docker_container` and may have `ready` with a module that succeeds when it is up",
            "7:59 there is no module `comand` = did you mean `command`?",
        ],
    );
}

#[test]
fn files_that_are_not_there_and_circles_are_found() {
    let main = "- hosts: all\n  vars_files: [nix.yml]\n  tasks:\n    - import_tasks: a.yml\n    \
                - include_tasks: '{{ x }}.yml'\n    - import_tasks: gone.yml\n";
    let dir = folder(&[
        ("p.yml", main),
        ("a.yml", "- include_tasks: sub/b.yml\n"),
        ("sub/b.yml", "- import_tasks: ../a.yml\n- comand: x\n"),
    ]);
    let path = dir.path().join("p.yml");
    let problems = check(&path, &options(), &KnownNames::default()).map(|_| ());
    let shown: Vec<String> = problems
        .expect_err("it is wrong")
        .iter()
        .map(|problem| {
            format!("{} {}", problem.at, problem.message)
                .replace(&format!("{}/", dir.path().display()), "")
        })
        .collect();
    assert_eq!(
        shown,
        [
            "p.yml:2:16 cannot read the variables file nix.yml: it does not exist",
            "p.yml:5:22 `include_tasks` needs a fixed path",
            "p.yml:6:21 cannot read the tasks file gone.yml: it does not exist",
            "sub/b.yml:1:17 the file includes itself: a.yml -> b.yml -> a.yml",
            "sub/b.yml:2:3 `comand` is neither a module nor a keyword of a task",
        ]
    );
    let missing = check(
        &dir.path().join("no.yml"),
        &options(),
        &KnownNames::default(),
    );
    assert!(missing.is_err_and(|problems| problems[0].message.contains("it does not exist")));
}

#[test]
fn an_imported_playbook_brings_its_plays() {
    let found = checked(&[
        (
            "p.yml",
            "- import_playbook: q.yml\n  vars: {x: 1}\n  tags: t\n- hosts: b\n",
        ),
        (
            "q.yml",
            "- hosts: a\n  tasks:\n    - name: n\n      command: echo {{ x }}\n",
        ),
    ])
    .map_err(|problems| lines(&problems))
    .expect("it is good");
    let plays = &found.playbook.plays;
    assert_eq!(plays.len(), 2);
    assert_eq!(plays[0].name, "a");
    assert!(matches!(&plays[0].hosts.kind, NodeKind::String(hosts) if hosts == "a"));
    assert!(matches!(&plays[0].items[0], Item::Task(task) if task.common.tags == ["t"]));
}

#[test]
fn one_way_tasks_without_identity_get_a_warning() {
    let text = play(
        "- command: a\n- command: b\n  name: same\n- command: c\n  name: same\n- command: d\n  \
         id: d\n- command: e\n  name: own\n",
    );
    let found = checked(&[("p.yml", &text)]).map_err(|problems| lines(&problems));
    let help = " = add an `id`, so that it is recognised as done after the playbook is edited";
    assert_eq!(
        lines(&found.expect("warnings only").warnings),
        [
            format!("3:7 this task must not run twice, and has neither `id` nor name{help}"),
            format!("4:7 this task must not run twice, and shares the name `same`{help}"),
            format!("6:7 this task must not run twice, and shares the name `same`{help}"),
        ]
    );
}

#[test]
fn all_kinds_of_mistakes_are_reported_together() {
    let found = wrong_tasks(
        "- comand: x\n  register: seen\n- file: {pth: /x}\n- command: echo {{ nix }} {{ seen }}\n  \
         id: i\n- command: b\n  id: i\n  bogus_keyword: 1",
    );
    assert_eq!(found.len(), 6, "{found:#?}");
}

fn rendered(problem: &Problem) -> String {
    let mut text = String::new();
    let handler =
        miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    handler
        .render_report(&mut text, problem)
        .expect("a String takes everything");
    let path = problem.at.file.path.display().to_string();
    text.replace(&path, "site.yml")
}

#[test]
fn problems_show_the_line_and_what_to_do() {
    let text = play(
        "- name: install\n  comand: {a: 1}\n- command: echo {{ backup_dri }}\n  vars: {backup_dir: /b}",
    );
    let problems = checked(&[("p.yml", &text)]).expect_err("it is wrong");
    assert_eq!(
        rendered(&problems[0]),
        "playbook::unknown_module

  × `comand` is neither a module nor a keyword of a task
   ╭─[site.yml:4:7]
 3 │     - name: install
 4 │       comand: {a: 1}
   ·       ───┬──
   ·          ╰── not known
 5 │     - command: echo {{ backup_dri }}
   ╰────
  help: did you mean `command`?
"
    );
    assert_eq!(
        rendered(&problems[1]),
        "playbook::undefined

  × `backup_dri` is undefined
   ╭─[site.yml:5:24]
 4 │       comand: {a: 1}
 5 │     - command: echo {{ backup_dri }}
   ·                        ─────┬────
   ·                             ╰── not defined
 6 │       vars: {backup_dir: /b}
   ╰────
  help: did you mean `backup_dir`?
"
    );
}

proptest::proptest! {
    /// Words of the language in any order and depth: problems, never a panic.
    #[test]
    fn no_playbook_panics(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "- ", "hosts: ", "all\n", "  tasks:\n", "    - ", "command: ", "file: ", "block: ", "[", "]",
            "{", "}", "when: ", "'{{ x }}'", "loop: ", "path=/x ", "creates=", "\n      ", "name: ",
            "vars: ", "services: ", "ready: ", "notify: ", "handlers: ", "1", ", ", "&a ", "*a", "<<: ",
            "register: ", "secrets: ", "args: ", "set_fact: ", "module_defaults: ", "id: ", "\"", "ü", "|\n",
        ]),
        0..40,
    )) {
        let text: String = words.concat();
        let _ = wrong(&text);
        let _ = wrong(&format!("- hosts: all\n  tasks:\n    - {text}"));
    }
}

#[test]
fn what_makes_no_difference_on_one_host_is_accepted_and_old_forms_are_understood() {
    let none: Vec<String> = Vec::new();
    let play = "- hosts: all\n  serial: 1\n  strategy: free\n  any_errors_fatal: true\n  tasks:\n";
    for task in [
        "- command: ls\n      run_once: true\n      delegate_to: localhost\n      become_user: root",
        "- action: command ls",
        "- local_action: {module: command, cmd: ls}",
        "- command: ls {{ item.key }}\n      with_dict: {a: 1}",
        "- command: ls {{ ansible_loop.index }}\n      loop: [1]\n      loop_control: {extended: true}",
    ] {
        assert_eq!(wrong(&format!("{play}    {task}\n")), none, "{task}");
    }
}

#[test]
fn an_include_may_loop_and_its_tasks_know_the_item() {
    let outcome = checked(&[
        (
            "p.yml",
            "- hosts: all\n  tasks:\n    - include_tasks: t.yml\n      loop: [a]\n      \
             loop_control: {loop_var: thing}\n",
        ),
        ("t.yml", "- command: ls {{ thing }}\n"),
    ]);
    let found = outcome.expect("it is sound");
    let Item::Block(block) = &found.playbook.plays[0].items[0] else {
        panic!("an include is a block")
    };
    assert!(block.dynamic && block.r#loop.is_some());
    let imported = wrong("- hosts: all\n  tasks:\n    - import_tasks: t.yml\n      loop: [a]\n");
    let told = imported.join("\n");
    assert!(told.contains("use `include_tasks`"), "{told}");
}

#[test]
fn who_asks_for_variables_says_for_which() {
    assert_eq!(
        wrong("- hosts: all\n  vars_prompt: [{prompt: Which}]\n  tasks: []\n"),
        ["2:17 this does not say which variable is asked for"]
    );
    let used = "- hosts: all\n  vars_prompt: [{name: site, private: no}]\n  tasks:\n    - command: ls {{ site }}\n";
    assert_eq!(wrong(used), Vec::<String>::new());
}
