//! HTTP/1 messages as a proxy needs them: heads that are parsed strictly and kept as bytes, bodies whose
//! framing is decoded and emitted afresh. No I/O in here.
//!
//! Why not hyper on the public port: its server cannot send interim answers (103 Early Hints), drops the
//! `Content-Length` beside a `Transfer-Encoding` before we could refuse the pair, and merges repeated
//! `Content-Length`s. A relay has to see what is wrong to refuse it. Heads are parsed by `httparse`.

pub mod body;
pub mod head;
pub mod scan;
