//! x
mod backoff;
mod decode;
mod extent;
mod failure;
mod machine;
mod request;
mod words;
