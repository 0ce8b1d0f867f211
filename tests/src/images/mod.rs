//! Container images, built here from Debian's packages and named by what goes into them.

mod debian;
mod docker;
mod official;
mod postgres;
mod slapd;

pub use debian::{DebianImage, ImageFile};
pub(crate) use docker::{LABEL, OWNER_LABEL};
pub use docker::{
    docker, docker_at, image_exists, remove_containers_on, remove_lab_images,
    remove_orphaned_containers,
};
pub use postgres::{PostgresImages, new_postgres, newer_postgres, old_postgres};
pub use slapd::{SLAPD_CONFIG, SLAPD_DATA, SLAPD_UID, new_slapd, old_slapd};
