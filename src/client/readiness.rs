//! Verdicts: what a client reads of them, watches, and waits for.

use futures::{Stream, StreamExt};

use super::{Client, Error, MAX_MESSAGE_BYTES};
use crate::proto::{
    Freshness, GetReadinessRequest, ListReadinessRequest, ReadinessListEnd, Verdict,
    WaitReadinessRequest, WaitReadinessResponse, WatchReadinessRequest, WatchReadinessResponse,
    readiness_service_client::ReadinessServiceClient,
};

impl Client {
    /// The verdict on one target; one that does not exist is GONE.
    ///
    /// # Errors
    /// [`Error::Refused`] with reason KIND_NOT_CONFIGURED or KIND_NOT_JUDGED, and others.
    pub async fn verdict(
        &self,
        request: GetReadinessRequest,
    ) -> Result<(Verdict, Freshness), Error> {
        let reply = self.readiness().get_readiness(request).await;
        let reply = reply.map_err(|status| self.error(&status))?.into_inner();
        let verdict = reply
            .verdict
            .ok_or(Error::Incomplete("the reply has no verdict"))?;
        Ok((verdict, reply.freshness.unwrap_or_default()))
    }

    /// The verdicts of a scope, and where a watch with the same scope follows on.
    pub async fn verdicts(
        &self,
        request: ListReadinessRequest,
    ) -> Result<(Vec<Verdict>, ReadinessListEnd), Error> {
        let pages = self.readiness().list_readiness(request).await;
        let mut pages = pages.map_err(|status| self.error(&status))?.into_inner();
        let mut verdicts = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|status| self.error(&status))?;
            verdicts.extend(page.verdicts);
            let Some(end) = page.end else { continue };
            if end.count != verdicts.len() as u64 {
                return Err(Error::Incomplete("verdicts of the list are missing"));
            }
            return Ok((verdicts, end));
        }
        Err(Error::Incomplete("the list stopped before its end mark"))
    }

    /// One stream of verdicts, as it comes: whoever wants to go on after it ends calls again with the last token.
    pub async fn watch_verdicts(
        &self,
        request: WatchReadinessRequest,
    ) -> Result<impl Stream<Item = Result<WatchReadinessResponse, Error>> + Unpin + use<>, Error>
    {
        let messages = self.readiness().watch_readiness(request).await;
        let messages = messages.map_err(|status| self.error(&status))?.into_inner();
        let server = self.server.clone();
        Ok(messages.map(move |it| it.map_err(|status| Error::from_status(&server, &status))))
    }

    /// Waits for targets: progress, and at last a message that has an outcome.
    pub async fn wait(
        &self,
        request: WaitReadinessRequest,
    ) -> Result<impl Stream<Item = Result<WaitReadinessResponse, Error>> + Unpin + use<>, Error>
    {
        let messages = self.readiness().wait_readiness(request).await;
        let messages = messages.map_err(|status| self.error(&status))?.into_inner();
        let server = self.server.clone();
        Ok(messages.map(move |it| it.map_err(|status| Error::from_status(&server, &status))))
    }

    fn readiness(&self) -> ReadinessServiceClient<super::Wire> {
        ReadinessServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}
