//! The command line of the lab: builds images, makes and removes sites, cleans up.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lab::crash::OlderAgent;
use lab::error::LabError;
use lab::images::{self, PostgresImages};
use lab::site::{Scale, Site};
use lab::way::Way;
use lab::{journals, workplace};

/// Images and synthetic Kaapana 0.2 sites for trying kaapana-agent.
#[derive(Parser)]
#[command(name = "lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the PostgreSQL and slapd images where they are missing, and prints their names.
    Images,
    /// Makes and removes sites.
    #[command(subcommand)]
    Site(SiteCommand),
    /// Migrates a small site on each way and keeps the journals, `<prefix>-<route>-<ldap_update>` each: for
    /// `fixtures/state`, before the journal's format changes.
    Journals {
        /// The agent's binary.
        #[arg(long)]
        agent: PathBuf,
        /// The folder of its playbooks.
        #[arg(long)]
        playbooks: PathBuf,
        /// Begin of the folders' names, such as tests/fixtures/state/v2.
        #[arg(long)]
        prefix: String,
        /// Only this way, such as direct-offline.
        #[arg(long)]
        only: Option<String>,
    },
    /// Removes all that the lab made: containers, images, caches. Sites in other places stay.
    Clean,
}

#[derive(Subcommand)]
enum SiteCommand {
    /// Makes a site in an empty or new directory.
    Create {
        /// How large: S (1,000 instances), M (100,000) or L (1,000,000).
        #[arg(long, value_enum, ignore_case = true)]
        scale: Scale,
        /// Where.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Removes a site, whatever a migration made of it.
    Remove {
        /// The site's directory.
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: failed to {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                eprintln!("  because: {inner}");
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), LabError> {
    match command {
        Command::Images => {
            let images = PostgresImages::ensure()?;
            println!("old {}\nnew {}", images.old, images.new);
            println!("old {}\nnew {}", images::old_slapd()?, images::new_slapd()?);
        }
        Command::Site(SiteCommand::Create { scale, dir }) => {
            let site = Site::create(&dir, scale)?;
            println!("FAST_DATA_DIR={}", site.fast_data_dir.display());
            println!("SLOW_DATA_DIR={}", site.slow_data_dir.display());
            println!("BACKUP_DIR={}", site.backup_dir.display());
            println!(
                "OLD_IMAGE={}\nNEW_IMAGE={}",
                site.images.old, site.images.new
            );
        }
        Command::Site(SiteCommand::Remove { dir }) => Site::remove_at(&dir)?,
        Command::Journals {
            agent,
            playbooks,
            prefix,
            only,
        } => {
            let agent = OlderAgent {
                binary: agent,
                playbooks,
            };
            let is_wanted = |way: &Way| only.as_ref().is_none_or(|only| *only == way.name());
            for way in Way::ALL.into_iter().filter(is_wanted) {
                let into = PathBuf::from(format!("{prefix}-{}", way.name()));
                journals::keep(&agent, way, &into)?;
                println!("{}", into.display());
            }
        }
        Command::Clean => {
            let containers = images::remove_orphaned_containers(true)?;
            let images = images::remove_lab_images()?;
            for part in ["cache", "sites"] {
                workplace::remove_any(&workplace::lab_dir().join(part))?;
            }
            println!(
                "removed {containers} containers, {images} images and {}",
                workplace::lab_dir().display()
            );
        }
    }
    Ok(())
}
