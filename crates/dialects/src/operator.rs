//! What an operator says of a Pod's processes, over their heads: `portolan.dev/override`.
//!
//! ```text
//!   disabled                     every service of the Pod is switched off
//!   draining                     every service takes no new calls
//!   reviews=disabled,ratings=draining    only these
//! ```
//!
//! It stands before everything that the Pod and its processes say: a Pod that may change its own
//! registration keys may not change this one.

use portolan_model::{Code, Reason};

use crate::{PodView, Reading, Standing};

/// Key of the annotation.
pub(crate) const OVERRIDE: &str = "portolan.dev/override";

/// Lets the operator's word count.
pub(crate) fn apply(pod: &PodView<'_>, reading: &mut Reading) {
    let Some(text) = pod.annotation(OVERRIDE) else { return };
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        // An interface may hold a '='; a state does not.
        let (interface, state) =
            part.rsplit_once('=').map_or((None, part), |(name, state)| (Some(name.trim()), state));
        let standing = match state.trim() {
            "disabled" => Standing::SwitchedOff,
            "draining" => Standing::Draining,
            state => {
                let detail = format!("{OVERRIDE}: {state:?} is none of disabled and draining.");
                reading.refuse(Reason::new(Code::OVERRIDE_INVALID, detail));
                continue;
            }
        };
        let mut met = interface.is_none();
        for registration in &mut reading.registrations {
            if interface.is_none_or(|interface| *interface == *registration.interface) {
                registration.standing = standing;
                met = true;
            }
        }
        if !met {
            let detail =
                format!("{OVERRIDE}: the Pod registered no {:?}.", interface.unwrap_or_default());
            reading.refuse(Reason::new(Code::OVERRIDE_INVALID, detail));
        }
    }
}
