//! Load reports (LRS): taken, so that clients that have them configured go on; nothing
//! is made of them yet.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use portolan_envoy_proto::{
    google::protobuf::Duration,
    service::load_stats::v3::{
        LoadStatsRequest, LoadStatsResponse, load_reporting_service_server::LoadReportingService,
    },
};
use tonic::{Request, Response, Status, Streaming};

/// How often clients report: seldom, as nobody reads it.
const INTERVAL_S: i64 = 60;

pub(super) struct Reports;

#[tonic::async_trait]
impl LoadReportingService for Reports {
    type StreamLoadStatsStream =
        Pin<Box<dyn Stream<Item = Result<LoadStatsResponse, Status>> + Send>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let mut is_first = true;
        let answers = request.into_inner().filter_map(move |report| {
            let answer = match report {
                Ok(_) if std::mem::take(&mut is_first) => Some(Ok(LoadStatsResponse {
                    send_all_clusters: true,
                    load_reporting_interval: Some(Duration { seconds: INTERVAL_S, nanos: 0 }),
                    ..LoadStatsResponse::default()
                })),
                Ok(_) => None,
                Err(status) => Some(Err(status)),
            };
            std::future::ready(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
