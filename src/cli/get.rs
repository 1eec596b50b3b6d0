//! `informerd get`.

use tonic::Code;

use super::{Error, Format, Output, ServerArgs, TargetArgs, note, print, target::Target};
use crate::{
    client::{self, Client, List},
    proto::{Freshness, GetObjectRequest, ListObjectsRequest, Object},
};

/// Arguments of `get`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// How to print the objects
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// With -o json or yaml: only these paths of each object: .spec.nodeName,.spec.containers[*].image
    #[arg(long, value_name = "PATHS", value_delimiter = ',')]
    fields: Vec<String>,
}

/// Prints one object or a list.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    check_fields(&args.fields, args.output)?;
    let client = args.server.connect()?;
    let target = args.target.resolve(&client.kinds().await?)?;
    let (objects, freshness) = if target.scope.name.is_empty() {
        let List {
            objects, freshness, ..
        } = client
            .list(ListObjectsRequest {
                scope: Some(target.scope.clone()),
                view: args.output.view().into(),
                fields: args.fields,
                ..ListObjectsRequest::default()
            })
            .await?;
        (objects, freshness)
    } else {
        let (object, freshness) = one(&client, &target, args.output, args.fields).await?;
        (vec![object], freshness)
    };
    if let Some(warning) = note::warning(&target.scope.resource, &freshness, Some(&target.kind)) {
        writeln!(out.err, "{warning}")?;
    }
    if freshness.pruned && args.output.is_whole() {
        writeln!(out.err, "{}", note::PRUNED)?;
    }
    if objects.is_empty() && !args.output.is_whole() {
        return Ok(writeln!(out.err, "{}", target.nothing())?);
    }
    match args.output {
        Format::Json | Format::Yaml => match &objects[..] {
            [object] if !target.scope.name.is_empty() => print::one(out.out, args.output, object),
            objects => print::list(out.out, args.output, objects),
        },
        Format::Name => {
            for object in &objects {
                print::name(out.out, &target, object)?;
            }
            Ok(())
        }
        Format::Table | Format::Wide => print::Rows::new(&target, args.output, false)
            .write(out, objects.iter().map(|object| ("", object))),
    }
}

/// A table is made of the whole object.
pub(super) fn check_fields(fields: &[String], output: Format) -> Result<(), Error> {
    if fields.is_empty() || output.is_whole() {
        return Ok(());
    }
    Err(Error::Usage(
        "--fields needs whole objects: add -o json or -o yaml".into(),
    ))
}

async fn one(
    client: &Client,
    target: &Target,
    output: Format,
    fields: Vec<String>,
) -> Result<(Object, Freshness), Error> {
    let request = GetObjectRequest {
        scope: Some(target.scope.clone()),
        view: output.view().into(),
        fields,
        ..GetObjectRequest::default()
    };
    client.get(request).await.map_err(|error| match &error {
        client::Error::Refused(refusal)
            if refusal.code == Code::NotFound && refusal.reason == "OBJECT_NOT_FOUND" =>
        {
            target.not_found()
        }
        _ => error.into(),
    })
}
