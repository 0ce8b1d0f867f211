//! Hosts in batches, and when no further host begins: `serial`, `any_errors_fatal`, `max_fail_percentage`.

use std::ops::Range;

use crate::playbook::model::{Batch, Play};
use crate::source::Problem;

/// How a playbook goes over its hosts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Batches {
    serial: Vec<Batch>,
    /// One host's failure ends the others' runs behind the task that they are at.
    pub any_errors_fatal: bool,
    max_fail_percentage: Option<f64>,
}

impl Batches {
    /// What the plays say. A host goes through all plays before the next batch begins, so that those which
    /// have a `serial` have to agree; otherwise the strictest counts.
    pub(super) fn of(plays: &[Play]) -> Result<Self, Vec<Problem>> {
        let mut batches = Self::default();
        let mut problems = Vec::new();
        for play in plays {
            let fleet = &play.fleet;
            batches.any_errors_fatal |= fleet.any_errors_fatal;
            let percentages = [batches.max_fail_percentage, fleet.max_fail_percentage];
            batches.max_fail_percentage = percentages.into_iter().flatten().reduce(f64::min);
            match &fleet.serial_at {
                Some(at) if !batches.serial.is_empty() && batches.serial != fleet.serial => {
                    problems.push(fleet.contradiction(at));
                }
                Some(_) => batches.serial.clone_from(&fleet.serial),
                None => {}
            }
        }
        if problems.is_empty() {
            Ok(batches)
        } else {
            Err(problems)
        }
    }

    /// The batches of so many hosts, in order. Sizes as Ansible counts them: a share is one of all hosts,
    /// rounded down, and the last size repeats.
    pub(super) fn ranges(&self, hosts: usize) -> Vec<Range<usize>> {
        let mut sizes = self.serial.iter();
        let mut size = hosts;
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut begun = 0;
        while begun < hosts {
            if let Some(next) = sizes.next() {
                size = match *next {
                    Batch::Hosts(0) => hosts,
                    Batch::Hosts(number) => number,
                    #[allow(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        clippy::cast_precision_loss
                    )] // A share of a number of hosts; out of range saturates.
                    Batch::Percent(percent) => (hosts as f64 * percent / 100.0) as usize,
                }
                .max(1);
            }
            let end = hosts.min(begun.saturating_add(size));
            ranges.push(begun..end);
            begun = end;
        }
        ranges
    }

    /// Why the next batch does not begin, after so many of a batch failed or were not reached.
    pub(super) fn enough(&self, failed: usize, of: usize) -> Option<String> {
        if failed == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // Numbers of hosts.
        let percentage = failed as f64 * 100.0 / of as f64;
        if self.any_errors_fatal {
            return Some(
                "another host failed, and errors are fatal (`any_errors_fatal`)".to_owned(),
            );
        }
        match self.max_fail_percentage {
            Some(most) if percentage > most => Some(format!(
                "{failed} of {of} hosts of the batch before failed, more than {most} % \
                 (`max_fail_percentage`)"
            )),
            _ if failed == of => {
                Some("every host of the batch before failed (`serial`)".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(serial: &[Batch]) -> Batches {
        Batches {
            serial: serial.to_vec(),
            ..Batches::default()
        }
    }

    fn sizes(serial: &[Batch], hosts: usize) -> Vec<usize> {
        let ranges = batches(serial).ranges(hosts);
        ranges.iter().map(ExactSizeIterator::len).collect()
    }

    #[test]
    fn batches_have_ansibles_sizes() {
        use Batch::{Hosts, Percent};
        assert_eq!(sizes(&[], 5), [5]);
        assert_eq!(sizes(&[Hosts(2)], 5), [2, 2, 1]);
        assert_eq!(sizes(&[Hosts(0)], 5), [5]);
        assert_eq!(sizes(&[Percent(30.0)], 10), [3, 3, 3, 1]);
        assert_eq!(sizes(&[Percent(1.0)], 3), [1, 1, 1]);
        assert_eq!(sizes(&[Hosts(1), Percent(50.0)], 9), [1, 4, 4]);
        assert_eq!(sizes(&[Hosts(1)], 0), [0usize; 0]);
    }

    #[test]
    fn a_batch_that_failed_ends_the_rest() {
        let plain = batches(&[Batch::Hosts(2)]);
        assert_eq!(plain.enough(0, 2), None);
        assert_eq!(plain.enough(1, 2), None);
        assert!(plain.enough(2, 2).is_some_and(|why| why.contains("every")));
        let fatal = Batches {
            any_errors_fatal: true,
            ..plain.clone()
        };
        assert!(fatal.enough(1, 100).is_some());
        let most = Batches {
            max_fail_percentage: Some(50.0),
            ..plain
        };
        assert_eq!(most.enough(1, 2), None);
        assert!(most.enough(2, 3).is_some_and(|why| why.contains("50 %")));
    }
}
