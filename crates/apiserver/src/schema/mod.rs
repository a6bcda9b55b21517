//! What the machinery asks about a kind: defaults, validation, columns, selectable fields, OpenAPI.
