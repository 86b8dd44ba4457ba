//! From bytes to rows: files as they are stored, their lines, tables and times.

pub mod identity;
pub(crate) mod jsonl;
pub(crate) mod moment;
pub(crate) mod source;
pub(crate) mod spool;
pub(crate) mod table;
