//! Requests that cannot be answered: problem details (RFC 9457), with the field that is wrong and
//! what to do about it.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use portolan_sdk::Error;
use serde_json::json;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
    pub(crate) field: Option<String>,
    pub(crate) fix: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None, fix: String::new() }
    }

    /// A value of the request that is wrong.
    pub(crate) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::BAD_REQUEST, detail);
        Self { field: Some(field.into()), ..problem }
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(crate) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// In a part of the request: `services[2]` and `port` are `services[2].port`.
    pub(crate) fn within(self, part: &str) -> Self {
        let field = match self.field.as_deref() {
            None | Some("") => part.to_owned(),
            Some(field) if field.starts_with('[') => format!("{part}{field}"),
            Some(field) => format!("{part}.{field}"),
        };
        Self { field: Some(field), ..self }
    }

    /// In one line, for people who read no JSON.
    pub(crate) fn line(&self) -> String {
        let Self { detail, field, fix, .. } = self;
        let field = field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
        let fix = if fix.is_empty() { String::new() } else { format!("; fix: {fix}") };
        format!("{field}{detail}{fix}")
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let status = match error {
            Error::Invalid(_) | Error::Setting { .. } => StatusCode::BAD_REQUEST,
            Error::PodNotFound { .. } | Error::PodReplaced { .. } => StatusCode::CONFLICT,
            Error::Refused { .. } => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let text = error.to_string();
        let (detail, fix) = text.split_once("; fix: ").unwrap_or((&text, ""));
        let problem = Self::new(status, detail).fix(fix);
        match error {
            Error::Setting { name, .. } => Self { field: Some((*name).to_owned()), ..problem },
            Error::Invalid(_) => Self { field: Some("services".to_owned()), ..problem }
                .fix("register less, or shorter metadata"),
            Error::Unreachable { .. } => problem.fix("try again; see what keeps it from answering"),
            _ => problem,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(field) = self.field {
            body["field"] = field.into();
        }
        if !self.fix.is_empty() {
            body["fix"] = self.fix.into();
        }
        let kind = HeaderValue::from_static("application/problem+json");
        (self.status, [(header::CONTENT_TYPE, kind)], Json(body)).into_response()
    }
}
