//! A synthetic Kaapana 0.2 site on disk.

mod directories;
mod generate;
mod objects;
mod scale;

pub use directories::Site;
pub use scale::Scale;
