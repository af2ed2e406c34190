//! Whole groups of members in memory: scripts tell stories, chaos looks for the ones nobody thought of.

mod chaos;
mod disk;
mod hostile;
mod order;
mod scripts;
mod world;
