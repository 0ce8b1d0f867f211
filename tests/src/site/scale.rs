//! How large a site is.

use clap::ValueEnum;

/// Size of a site, by the number of DICOM instances in its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// 1,000 instances: for tests.
    #[value(name = "S")]
    S,
    /// 100,000 instances: for benches.
    #[value(name = "M")]
    M,
    /// 1,000,000 instances: a real, smaller hospital.
    #[value(name = "L")]
    L,
}

impl Scale {
    /// Number of instances.
    #[must_use]
    pub fn instances(self) -> u32 {
        match self {
            Self::S => 1_000,
            Self::M => 100_000,
            Self::L => 1_000_000,
        }
    }

    /// Every how many-th DICOM object exists as a file: all at S and M. At L one in a hundred, because a
    /// million inodes would cost more than they prove.
    #[must_use]
    pub fn file_step(self) -> u32 {
        match self {
            Self::S | Self::M => 1,
            Self::L => 100,
        }
    }

    /// The letter.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::S => "S",
            Self::M => "M",
            Self::L => "L",
        }
    }
}
