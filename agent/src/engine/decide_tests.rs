//! The rule, one state of a task at a time.

use super::*;
use crate::state::How;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

fn fingerprint(number: u8) -> Fingerprint {
    Fingerprint::new("m", &Value::from(number), &[])
}

fn finished(number: u8, status: TaskStatus) -> Finished {
    Finished {
        seq: 1,
        run: "r".into(),
        time: Timestamp::UNIX_EPOCH,
        status,
        how: How::Ran,
        fingerprint: fingerprint(number),
        arguments: Value::Null,
        result: Value::Null,
        hidden: Vec::new(),
        outputs: Vec::new(),
        summary: None,
        duration_ms: 0,
    }
}

fn attempt(number: u8) -> Attempt {
    Attempt {
        attempt: "a".into(),
        run: "r".into(),
        time: Timestamp::UNIX_EPOCH,
        module: "m".into(),
        fingerprint: fingerprint(number),
        arguments: Value::Null,
        intent: Value::Null,
        needs_change: None,
        unseen: None,
    }
}

/// What the world looks like, in the model's own words.
#[derive(Debug, Clone, Copy)]
enum Past {
    Nothing,
    Skipped,
    Done(u8),
    DoneButIgnored(u8),
    Failed,
    Cut(u8),
    RedoWanted,
    Undone,
    HalfUndone,
}

fn history(past: Past) -> Option<TaskHistory> {
    Some(match past {
        Past::Nothing => return None,
        Past::Skipped => TaskHistory::Skipped {
            condition: "c".into(),
        },
        Past::Done(n) => TaskHistory::Finished(Box::new(finished(n, TaskStatus::Changed))),
        Past::DoneButIgnored(n) => {
            TaskHistory::Finished(Box::new(finished(n, TaskStatus::Ignored)))
        }
        Past::Failed => TaskHistory::Failed {
            run: "r".into(),
            time: Timestamp::UNIX_EPOCH,
            error: None,
            duration_ms: 0,
        },
        Past::Cut(n) => TaskHistory::Interrupted(Box::new(attempt(n))),
        Past::RedoWanted => TaskHistory::Redo {
            user: "u".into(),
            reason: "why".into(),
        },
        Past::Undone => TaskHistory::Undone {
            run: "r".into(),
            time: Timestamp::UNIX_EPOCH,
            summary: None,
        },
        Past::HalfUndone => TaskHistory::Undoing {
            run: "r".into(),
            time: Timestamp::UNIX_EPOCH,
        },
    })
}

/// The promises, each as a claim about effects, without looking at how `decide` is built:
/// would the effect of a one-way task happen although it (perhaps) happened before?
fn may_have_happened(past: Past) -> bool {
    matches!(past, Past::Done(_) | Past::Cut(_) | Past::HalfUndone)
}

fn any_past() -> impl Strategy<Value = Past> {
    prop_oneof![
        Just(Past::Nothing),
        Just(Past::Skipped),
        (0..3u8).prop_map(Past::Done),
        (0..3u8).prop_map(Past::DoneButIgnored),
        Just(Past::Failed),
        (0..3u8).prop_map(Past::Cut),
        Just(Past::RedoWanted),
        Just(Past::Undone),
        Just(Past::HalfUndone),
    ]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::ReadOnly),
        Just(Kind::Converging),
        Just(Kind::OneWay)
    ]
}

proptest! {
    #[test]
    fn a_one_way_effect_that_may_have_happened_is_never_repeated_unasked(
        past in any_past(), now in 0..3u8,
    ) {
        let history = history(past);
        let decision = decide(Kind::OneWay, &fingerprint(now), history.as_ref(), &[]);
        if may_have_happened(past) {
            prop_assert!(!matches!(decision, Decision::Run(_)), "{:?}", decision);
        }
    }

    #[test]
    fn what_was_done_with_the_same_inputs_is_passed_over(kind in any_kind(), now in 0..3u8) {
        let history = history(Past::Done(now));
        let decision = decide(kind, &fingerprint(now), history.as_ref(), &[]);
        prop_assert!(matches!(decision, Decision::Done(_)));
    }

    #[test]
    fn what_is_not_proved_done_is_never_passed_over(
        kind in any_kind(), past in any_past(), now in 0..3u8,
    ) {
        let proved = matches!(past, Past::Done(n) | Past::DoneButIgnored(n) if n == now);
        let history = history(past);
        let decision = decide(kind, &fingerprint(now), history.as_ref(), &[]);
        prop_assert_eq!(matches!(decision, Decision::Done(_)), proved);
    }

    #[test]
    fn a_task_that_describes_a_state_or_looks_never_waits_for_an_operator(
        past in any_past(), now in 0..3u8,
    ) {
        let history = history(past);
        if matches!(past, Past::HalfUndone) {
            return Ok(());
        }
        for kind in [Kind::ReadOnly, Kind::Converging] {
            let decision = decide(kind, &fingerprint(now), history.as_ref(), &[]);
            prop_assert!(!matches!(decision, Decision::Ask(_)));
        }
    }
}

#[test]
fn what_was_undone_runs_again_and_what_is_half_undone_waits() {
    let now = fingerprint(1);
    for kind in [Kind::ReadOnly, Kind::Converging, Kind::OneWay] {
        let undone = history(Past::Undone);
        let decision = decide(kind, &now, undone.as_ref(), &[]);
        assert_eq!(decision, Decision::Run(Reason::Undone { run: "r" }));
        let half = history(Past::HalfUndone);
        let decision = decide(kind, &now, half.as_ref(), &[]);
        let question = Question::UndoInterrupted { run: "r" };
        assert_eq!(decision, Decision::Ask(question));
    }
}

#[test]
fn a_renamed_task_is_adopted_only_if_a_single_orphan_has_its_fingerprint() {
    let (same, twin) = (finished(1, TaskStatus::Ok), finished(1, TaskStatus::Ok));
    let other = finished(2, TaskStatus::Ok);
    let orphan = |identity, finished| Orphan { identity, finished };
    let now = fingerprint(1);
    let decide = |orphans: &[Orphan<'_>]| {
        matches!(
            decide(Kind::OneWay, &now, None, orphans),
            Decision::Adopt { from: "old", .. }
        )
    };
    assert!(decide(&[orphan("old", &same), orphan("other", &other)]));
    assert!(!decide(&[orphan("other", &other)]));
    assert!(!decide(&[orphan("old", &same), orphan("twin", &twin)]));
}
