//! What faces cannot show, gathered for the people who ask.

use std::sync::{Arc, Mutex, PoisonError};

use portolan_model::Problem;

/// Tells the problems of a face as they are now.
pub trait FaceProblems: Send + Sync {
    /// Every problem, in no particular order.
    fn problems(&self) -> Vec<Problem>;
}

/// Gathers the problems of all faces. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Problems {
    faces: Arc<Mutex<Vec<Arc<dyn FaceProblems>>>>,
}

impl Problems {
    /// Adds a face.
    pub fn add(&self, face: Arc<dyn FaceProblems>) {
        self.faces.lock().unwrap_or_else(PoisonError::into_inner).push(face);
    }

    /// Every problem of every face.
    pub fn all(&self) -> Vec<Problem> {
        let faces = self.faces.lock().unwrap_or_else(PoisonError::into_inner).clone();
        faces.iter().flat_map(|face| face.problems()).collect()
    }
}
