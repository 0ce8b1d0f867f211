//! What a plain dump and an SQL script are made of. Reads text; talks to no server.

pub(crate) mod anticipate;
pub(crate) mod copy_binary;
pub(crate) mod growth;
pub(crate) mod lexer;
pub(crate) mod reader;
pub(crate) mod source;
pub(crate) mod sql_split;
pub(crate) mod statement;
pub(crate) mod text;
