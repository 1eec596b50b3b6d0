use proptest::prelude::*;

use super::*;

fn read(page: &[u8], cut: usize) -> Result<(Vec<Vec<u8>>, PageEnd), DecodeError> {
    let (mut reader, mut items) = (Page::default(), Vec::new());
    for piece in page.chunks(cut) {
        reader.push(piece, |item| items.push(item.to_vec()))?;
    }
    Ok((items, reader.finish()?))
}

const PAGE: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"12","continue":"abc","remainingItemCount":3},
    "items":[{"metadata":{"name":"a"}}, {"x":"]},{\""} ,{}]}"#;

#[test]
fn a_page_gives_its_items_and_metadata_however_it_is_cut() {
    for cut in 1..PAGE.len() + 1 {
        let (items, end) = read(PAGE.as_bytes(), cut).unwrap();
        assert_eq!(
            items,
            [
                &br#"{"metadata":{"name":"a"}}"#[..],
                br#"{"x":"]},{\""}"#,
                b"{}"
            ]
        );
        assert_eq!(end.revision, Revision::Number(12));
        assert_eq!((end.next.as_deref(), end.remaining), (Some("abc"), Some(3)));
        assert_eq!(end.kind, "PodList");
    }
}

#[test]
fn a_page_may_tell_its_revision_after_its_items_and_have_none_of_them() {
    let (items, end) = read(br#"{"items":null,"metadata":{"resourceVersion":"7"}}"#, 5).unwrap();
    assert_eq!(
        (items.len(), end.revision, end.next),
        (0, Revision::Number(7), None)
    );
    let (items, _) = read(br#"{"items":[],"metadata":{"continue":""}}"#, 5).unwrap();
    assert_eq!(items.len(), 0);
}

#[test]
fn a_page_that_is_cut_anywhere_is_partial() {
    for end in 0..PAGE.len() {
        let result = read(&PAGE.as_bytes()[..end], 7);
        assert!(
            matches!(result, Err(DecodeError::Partial)),
            "{end}: {result:?}"
        );
    }
}

#[test]
fn one_bad_item_does_not_spoil_the_page() {
    let page = b"{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"a\":\"\xff\xfe\"},{\"b\":nonsense},{\"c\":1},12]}";
    let (items, _) = read(page, 3).unwrap();
    assert_eq!(
        items,
        [
            &b"{\"a\":\"\xff\xfe\"}"[..],
            b"{\"b\":nonsense}",
            b"{\"c\":1}",
            b"12"
        ]
    );
}

#[test]
fn what_is_no_list_is_refused() {
    for (text, expected) in [
        (
            r#"{"kind":"Status","items":[]}"#,
            "sent a Status, not a list",
        ),
        (r#"{"kind":"PodList"}"#, "sent a PodList, not a list"),
        (r#"{}"#, "without items"),
        (r#"<html>"#, "'{' expected"),
        (r#"{"items":{}}"#, "one array of items expected"),
        (r#"{"items":[],"items":[]}"#, "one array of items expected"),
        (r#"{"items":[1,]}"#, "an item expected"),
        (r#"{"items":[]} x"#, "the end expected"),
        (r#"{"items":[] "a""#, "',' or '}' expected"),
        (r#"{"metadata":7,"items":[]}"#, "metadata"),
    ] {
        let error = read(text.as_bytes(), 4).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn lines_are_the_same_however_the_body_is_cut() {
    let body = b"one\n\ntwo\r\n three\nfour";
    for cut in 1..body.len() + 1 {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for frame in body.chunks(cut) {
            lines.push(Bytes::copy_from_slice(frame));
            while let Some(line) = lines.take().unwrap() {
                got.push(line);
            }
        }
        assert_eq!(got, ["one", "two\r", " three"]);
        assert!(!lines.is_whole(), "four has no end");
    }
    let mut lines = Lines::default();
    lines.push(Bytes::from_static(b"one\n"));
    assert!(lines.take().unwrap().is_some() && lines.take().unwrap().is_none() && lines.is_whole());
}

#[test]
fn a_line_without_end_is_given_up() {
    let mut lines = Lines::default();
    let frame = Bytes::from(vec![b'x'; MAX_ITEM_BYTES / 2]);
    for _ in 0..2 {
        lines.push(frame.clone());
        assert!(lines.take().unwrap().is_none());
    }
    lines.push(frame.clone());
    assert!(matches!(lines.take(), Err(DecodeError::TooLarge)));
}

#[test]
fn an_item_without_end_is_given_up() {
    let mut page = Page::default();
    page.push(br#"{"items":[""#, |_| ()).unwrap();
    let frame = vec![b'x'; MAX_ITEM_BYTES / 2];
    page.push(&frame, |_| ()).unwrap();
    page.push(&frame[..frame.len() - 1], |_| ()).unwrap();
    assert!(matches!(
        page.push(b"x", |_| ()),
        Err(DecodeError::TooLarge)
    ));
}

#[test]
fn events_are_read_in_any_order_of_their_members() {
    let object = br#"{"metadata":{"name":"a"}}"#;
    for line in [
        r#"{"type":"MODIFIED","object":{"metadata":{"name":"a"}}}"#,
        r#" {"object":{"metadata":{"name":"a"}}, "type" : "MODIFIED"}"#,
    ] {
        assert_eq!(
            Event::read(line.as_bytes()).unwrap(),
            Event::Change {
                r#type: EventType::Modified,
                object
            }
        );
        assert_eq!(
            Event::read_any(line.as_bytes()).unwrap(),
            Event::Change {
                r#type: EventType::Modified,
                object
            }
        );
    }
    for wrong in [
        "",
        "{}",
        r#"{"type":"ADDED"}"#,
        r#"{"type":"OTHER","object":{}}"#,
        r#"{"type":1,"object":{}}"#,
        "<html>",
    ] {
        assert!(Event::read(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn bookmarks_tell_their_revision_and_whether_the_beginning_is_complete() {
    let line = br#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"42","creationTimestamp":null},"spec":{}}}"#;
    assert_eq!(
        Event::read(line).unwrap(),
        Event::Bookmark {
            revision: Revision::Number(42),
            end_mark: false
        }
    );
    let line = br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"42","annotations":{"k8s.io/initial-events-end":"true","x":"y"}}}}"#;
    assert_eq!(
        Event::read(line).unwrap(),
        Event::Bookmark {
            revision: Revision::Number(42),
            end_mark: true
        }
    );
}

#[test]
fn errors_are_told_with_their_status() {
    let line = br#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}}"#;
    let Event::Error(status) = Event::read(line).unwrap() else {
        panic!()
    };
    assert!(status.is_expired());
    let Event::Error(status) = Event::read(br#"{"type":"ERROR","object":7}"#).unwrap() else {
        panic!()
    };
    assert_eq!(status.code, 500);
}

proptest! {
    #[test]
    fn no_response_is_too_strange(bytes: Vec<u8>, cut in 1..20_usize) {
        let _ = read(&bytes, cut);
        let _ = Event::read(&bytes);
        let _ = kind_of(&bytes);
    }

    #[test]
    fn a_list_is_read_as_serde_reads_it(
        names in proptest::collection::vec(r#"[a-z{}\[\]",\\é]{0,12}"#, 0..8), cut in 1..60_usize, pretty: bool,
    ) {
        let items: Vec<_> = names.iter().map(|name| serde_json::json!({"metadata": {"name": name}, "n": [1, {}]})).collect();
        let list = serde_json::json!({"kind": "PodList", "items": items, "metadata": {"resourceVersion": "5"}, "x": [null, 1.5]});
        let text = if pretty { serde_json::to_string_pretty(&list) } else { serde_json::to_string(&list) }.unwrap();
        let (got, end) = read(text.as_bytes(), cut).unwrap();
        let got: Vec<serde_json::Value> = got.iter().map(|item| serde_json::from_slice(item).unwrap()).collect();
        prop_assert_eq!(got, items);
        prop_assert_eq!(end.revision, Revision::Number(5));
    }
}
