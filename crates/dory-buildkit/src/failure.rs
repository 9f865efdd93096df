//! Failures of builds as clients show them: a status with the lines of the Dockerfile.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dory_build::{BuildError, ImagesError};
use serde_json::json;

use crate::attributes::AttributeError;
use crate::grpc::{Code, Status};

/// The type of a detail that says where in a file something failed (BuildKit's solver/errdefs; JSON, not protobuf).
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
/// The type of a detail that says which question was not understood.
const SUBREQUEST: &str = "github.com/moby/buildkit/errdefs.Subrequest+json";

impl From<AttributeError> for Status {
    fn from(error: AttributeError) -> Self {
        let code = match &error {
            AttributeError::Value { .. } => Code::InvalidArgument,
            AttributeError::Unsupported(_) => Code::Unimplemented,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ImagesError> for Status {
    fn from(error: ImagesError) -> Self {
        let code = match &error {
            ImagesError::NotFound { .. } => Code::NotFound,
            ImagesError::Reference { .. } => Code::InvalidArgument,
            ImagesError::Failed(_) => Code::Unknown,
            ImagesError::Cancelled => Code::Canceled,
        };
        Self::new(code, error.to_string())
    }
}

/// The status of a failed build.
pub fn of_build(error: &BuildError) -> Status {
    let code = match error {
        BuildError::Cancelled => Code::Canceled,
        BuildError::Invalid(_) | BuildError::Target(_) | BuildError::Parse { .. } => Code::InvalidArgument,
        BuildError::Unsupported(_) => Code::Unimplemented,
        BuildError::NotEntitled { .. } => Code::PermissionDenied,
        _ => Code::Unknown,
    };
    // Clients say "failed to solve" themselves, and dockerd's frontend this.
    let message = match error {
        BuildError::Parse { .. } => format!("dockerfile parse error: {error}"),
        _ => error.to_string(),
    };
    let status = Status::new(code, message);
    let (BuildError::Parse { source_text, .. } | BuildError::Step { source_text, .. }) = error else {
        return status;
    };
    match error.place() {
        Some((file, lines)) => {
            let position = |line: u32| json!({"line": line});
            let detail = json!({
                "info": {"filename": file, "data": STANDARD.encode(source_text.as_bytes()), "language": "Dockerfile"},
                "ranges": [{"start": position(lines.first), "end": position(lines.last)}],
            });
            status.with_detail(SOURCE, detail.to_string().into_bytes())
        }
        None => status,
    }
}

/// The answer to a question that the frontend does not know.
pub fn of_subrequest(name: &str) -> Status {
    let detail = json!({"name": name}).to_string().into_bytes();
    Status::not_supported(format!("the frontend request `{name}`")).with_detail(SUBREQUEST, detail)
}
