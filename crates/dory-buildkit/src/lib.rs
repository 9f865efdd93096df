//! BuildKit's gRPC over a stream: control, gateway and the services of a client's session.

pub mod filesync;
pub mod grpc;
pub mod session;
