//! The rule over whole histories: random journals, folded by `state::History` and then decided, against a
//! model that reads the journal anew, from its end, by what the README promises.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::Value;

use super::*;
use crate::state::{Answer, Body, History, How, Outcome, Record, format::NO_HASH};

/// Four tasks, one of them a loop with two items.
const TASKS: [&str; 5] = ["p / a", "p / b", "p / c", "p / loop [x]", "p / loop [y]"];

fn print(number: u8) -> Fingerprint {
    Fingerprint::new("m", &Value::from(number), &[])
}

fn record(seq: usize, body: Body) -> Record {
    Record {
        v: crate::state::format::FORMAT_VERSION,
        seq: seq as u64,
        // The clock may say what it likes: only the order counts.
        time: Timestamp::UNIX_EPOCH,
        run: format!("r{}", seq / 5),
        body,
        prev: NO_HASH.into(),
    }
}

/// What may come into a journal; tasks and inputs by number.
fn any_body() -> impl Strategy<Value = Body> {
    let task = || (0..TASKS.len()).prop_map(|index| TASKS[index].to_owned());
    let status = prop_oneof![
        3 => Just(TaskStatus::Failed),
        2 => Just(TaskStatus::Ok),
        3 => Just(TaskStatus::Changed),
        1 => Just(TaskStatus::Ignored),
        1 => Just(TaskStatus::Rescued),
    ];
    let how = prop_oneof![Just(How::Ran), Just(How::Recovered), Just(How::AlreadyDone)];
    prop_oneof![
        4 => (task(), 0..3u8, any::<u32>()).prop_map(|(task, input, id)| Body::TaskStarted {
            task,
            attempt: format!("attempt {id}"),
            module: "m".into(),
            fingerprint: print(input),
            arguments: Value::Null,
            intent: Value::Null,
            needs_change: None,
            reason: None,
        }),
        5 => (task(), 0..3u8, status, how).prop_map(|(task, input, status, how)| {
            Body::TaskFinished {
                task,
                attempt: None,
                status,
                how,
                fingerprint: print(input),
                arguments: Value::Null,
                result: Value::Null,
                hidden: Vec::new(),
                outputs: Vec::new(),
                summary: None,
                error: None,
                duration_ms: 1,
            }
        }),
        2 => task().prop_map(|task| Body::TaskSkipped { task, condition: "c".into() }),
        2 => (task(), task())
            .prop_filter("a task is not renamed to itself", |(task, from)| task != from)
            .prop_map(|(task, from)| Body::TaskAdopted { task, from }),
        3 => (task(), any::<bool>(), proptest::option::of(0..3u8)).prop_map(|(task, done, input)| {
            Body::TaskResolved {
                task,
                answer: if done { Answer::Done } else { Answer::Redo },
                reason: "because".into(),
                user: "u".into(),
                fingerprint: input.map(print),
            }
        }),
        1 => task().prop_map(|task| Body::HandlerNotified { task, by: "p / a".into() }),
        1 => Just(Body::RunFinished {
            outcome: Outcome::Interrupted,
            stats: BTreeMap::new(),
            duration_ms: 1,
        }),
    ]
}

/// What the README promises to know of a task.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    Nothing,
    SkippedOnly,
    Failed,
    WantedAgain,
    Open(Fingerprint),
    Done { with: Fingerprint, forgiven: bool },
}

/// Reads the journal from its end: the last thing that was said of the task counts, and what it says
/// may rest on what was known before it.
fn known(journal: &[Record], task: &str) -> Known {
    let Some((last, before)) = journal.split_last() else {
        return Known::Nothing;
    };
    let earlier = || known(before, task);
    match &last.body {
        Body::TaskStarted {
            task: of,
            fingerprint,
            ..
        } if of == task => Known::Open(fingerprint.clone()),
        Body::TaskFinished {
            task: of,
            status,
            fingerprint,
            ..
        } if of == task => match status {
            TaskStatus::Failed => Known::Failed,
            status => Known::Done {
                with: fingerprint.clone(),
                forgiven: *status == TaskStatus::Ignored,
            },
        },
        // "Its condition was false" takes nothing away from what happened before.
        Body::TaskSkipped { task: of, .. } if of == task => match earlier() {
            Known::Nothing => Known::SkippedOnly,
            more => more,
        },
        Body::TaskResolved {
            task: of,
            answer: Answer::Redo,
            ..
        } if of == task => Known::WantedAgain,
        Body::TaskResolved {
            task: of,
            answer: Answer::Done,
            fingerprint,
            ..
        } if of == task => match (earlier(), fingerprint) {
            (Known::Done { with, forgiven }, now) => Known::Done {
                with: now.clone().unwrap_or(with),
                forgiven,
            },
            (_, Some(now)) => Known::Done {
                with: now.clone(),
                forgiven: false,
            },
            (Known::Open(with), None) => Known::Done {
                with,
                forgiven: false,
            },
            // Nobody knows for what it is done.
            (other, None) => other,
        },
        // The story of the old name goes on under the new one, and only there.
        Body::TaskAdopted { task: new, from } if new == task => match known(before, from) {
            Known::Nothing => earlier(),
            story => story,
        },
        Body::TaskAdopted { from, .. } if from == task => Known::Nothing,
        _ => earlier(),
    }
}

/// What is to be done, in the README's words.
#[derive(Debug, PartialEq)]
enum Expected {
    Run,
    Done,
    Recover,
    Ask,
    Adopt(String),
}

fn expected(
    journal: &[Record],
    task: &str,
    in_playbook: &[&str],
    kind: Kind,
    now: &Fingerprint,
) -> Expected {
    let looks = kind == Kind::ReadOnly;
    let once = kind == Kind::OneWay;
    match known(journal, task) {
        Known::Nothing | Known::SkippedOnly => {
            let gone_with_same_inputs: Vec<&str> = TASKS
                .into_iter()
                .filter(|other| !in_playbook.contains(other))
                .filter(|other| {
                    matches!(known(journal, other), Known::Done { with, .. } if with == *now)
                })
                .collect();
            match gone_with_same_inputs[..] {
                [one] if !looks => Expected::Adopt(one.to_owned()),
                _ => Expected::Run,
            }
        }
        Known::Failed | Known::WantedAgain => Expected::Run,
        Known::Done { with, .. } if with == *now => Expected::Done,
        Known::Done { forgiven, .. } if once && !forgiven => Expected::Ask,
        Known::Done { .. } => Expected::Run,
        Known::Open(_) if looks => Expected::Run,
        Known::Open(with) if once && with != *now => Expected::Ask,
        Known::Open(_) => Expected::Recover,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_decided_over_any_history_is_what_the_readme_promises(
        bodies in proptest::collection::vec(any_body(), 0..40),
        kept in proptest::collection::vec(any::<bool>(), TASKS.len()),
        kind in prop_oneof![Just(Kind::ReadOnly), Just(Kind::Converging), Just(Kind::OneWay)],
        input in 0..3u8,
    ) {
        let journal: Vec<Record> = bodies
            .into_iter()
            .enumerate()
            .map(|(index, body)| record(index + 1, body))
            .collect();
        let in_playbook: Vec<&str> = TASKS
            .into_iter()
            .zip(&kept)
            .filter_map(|(task, kept)| kept.then_some(task))
            .collect();
        let history = History::of(&journal);
        let orphans = crate::engine::plan::orphans_but(&history, |task| in_playbook.contains(&task));
        let now = print(input);
        for task in &in_playbook {
            let found = match decide(kind, &now, history.task(task), &orphans) {
                Decision::Run(_) => Expected::Run,
                Decision::Done(_) => Expected::Done,
                Decision::Recover(_) => Expected::Recover,
                Decision::Ask(_) => Expected::Ask,
                Decision::Adopt { from, .. } => Expected::Adopt(from.to_owned()),
                Decision::LookAgain { .. } => {
                    let why = "looks are repeated by another rule";
                    return Err(TestCaseError::fail(why));
                }
            };
            let wanted = expected(&journal, task, &in_playbook, kind, &now);
            prop_assert_eq!(found, wanted, "{} in {:#?}", task, journal);
        }
    }

    /// The promise that people buy: between two starts of a one-way task with the same inputs there is
    /// always a failure, an operator's word, or nothing that could have happened.
    #[test]
    fn no_run_repeats_a_one_way_effect_unasked(
        bodies in proptest::collection::vec(any_body(), 0..40),
        input in 0..3u8,
    ) {
        let journal: Vec<Record> = bodies
            .into_iter()
            .enumerate()
            .map(|(index, body)| record(index + 1, body))
            .collect();
        let history = History::of(&journal);
        for task in TASKS {
            let decision = decide(Kind::OneWay, &print(input), history.task(task), &[]);
            if matches!(decision, Decision::Run(_)) {
                let may_have_happened = match known(&journal, task) {
                    Known::Open(_) => true,
                    Known::Done { forgiven, .. } => !forgiven,
                    _ => false,
                };
                prop_assert!(!may_have_happened, "{} in {:#?}", task, journal);
            }
        }
    }
}
