//! The skin over a stand-in for the server: every route, method and status, and raw bytes on the connection.

mod connections;
mod fake_api;
mod harness;
mod routes;
