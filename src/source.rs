//! x
mod backoff;
mod failure;
mod machine;
mod request;
mod words;
