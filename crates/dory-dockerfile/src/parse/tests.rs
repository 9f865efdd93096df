use super::*;

fn only(source: &str) -> Instruction {
    let file = parse(format!("FROM scratch\n{source}").as_bytes()).expect(source);
    file.stages[0].value.instructions[0].value.clone()
}

fn message(source: &str) -> String {
    parse(source.as_bytes()).expect_err(source).to_string()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn reads_stages() {
    let file = parse(
        b"ARG v=1\nARG w\nFROM --platform=$BUILDPLATFORM debian:$v AS Build\nRUN x\nFROM build\nCOPY --from=build a b\n",
    )
    .expect("well formed");
    assert_eq!(file.global_args.len(), 2);
    assert_eq!(file.global_args[0].value[0], ArgDefinition { name: "v".into(), default: Some("1".into()) });
    let [first, second] = file.stages.as_slice() else { panic!("two stages") };
    assert_eq!(first.value.base, "debian:$v");
    assert_eq!(first.value.name.as_deref(), Some("build"));
    assert_eq!(first.value.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!((second.lines.first, second.value.name.as_deref()), (5, None));
    assert_eq!(file.stage("BUILD", Some(1)), Some(0));
    assert_eq!(
        (file.stage("1", None), file.stage("1", Some(1)), file.stage("x", None)),
        (Some(1), None, None)
    );
}

#[test]
fn reads_instructions() {
    let line = |words: &[&str], shell| CommandLine { words: strings(words), shell };
    for (source, expected) in [
        ("CMD a 'b c'", Instruction::Cmd(line(&["a 'b c'"], true))),
        ("CMD [\"a\", \"b c\"]", Instruction::Cmd(line(&["a", "b c"], false))),
        ("CMD []", Instruction::Cmd(line(&[], false))),
        ("entrypoint [ \"a\" ]", Instruction::Entrypoint(line(&["a"], false))),
        ("EXPOSE 80/tcp 53/udp", Instruction::Expose(strings(&["53/udp", "80/tcp"]))),
        ("SHELL [\"/bin/bash\", \"-c\"]", Instruction::Shell(strings(&["/bin/bash", "-c"]))),
        ("VOLUME /a /b", Instruction::Volume(strings(&["/a", "/b"]))),
        ("VOLUME [\"/a b\"]", Instruction::Volume(strings(&["/a b"]))),
        ("USER  a:b ", Instruction::User("a:b".into())),
        ("WORKDIR /a b", Instruction::Workdir("/a b".into())),
        ("STOPSIGNAL SIGINT", Instruction::StopSignal("SIGINT".into())),
        ("MAINTAINER A <a@b>", Instruction::Maintainer("A <a@b>".into())),
        ("ONBUILD COPY --link a b", Instruction::Onbuild("COPY --link a b".into())),
        ("ONBUILD RUN <<E\nx\nE\n", Instruction::Onbuild("RUN <<E\nx\nE".into())),
        (
            "ARG a b=\"c d\"",
            Instruction::Arg(vec![
                ArgDefinition { name: "a".into(), default: None },
                ArgDefinition { name: "b".into(), default: Some("\"c d\"".into()) },
            ]),
        ),
    ] {
        assert_eq!(only(source), expected, "{source}");
    }
}

#[test]
fn reads_run() {
    let Instruction::Run(run) =
        only("RUN --mount=type=cache,target=/c --network=none --security=insecure <<E\nx\nE")
    else {
        panic!("it is a RUN");
    };
    assert_eq!(run.mounts, ["type=cache,target=/c"]);
    assert_eq!((run.network, run.security), (Network::None, Security::Insecure));
    assert_eq!(run.command, CommandLine { words: strings(&["<<E"]), shell: true });
    assert_eq!(run.heredocs[0].content, "x\n");
}

#[test]
fn reads_copy_and_add() {
    let Instruction::Copy(copy) =
        only("COPY --from=b --chown=1:2 --chmod=u+x --parents --exclude=*.o --exclude=t a* \"b\" /d/")
    else {
        panic!("it is a COPY");
    };
    assert_eq!((copy.from.as_deref(), copy.parents), (Some("b"), true));
    assert_eq!((copy.sources.chown.as_deref(), copy.sources.chmod.as_deref()), (Some("1:2"), Some("u+x")));
    assert_eq!(copy.sources.exclude, ["*.o", "t"]);
    assert_eq!((copy.sources.paths, copy.sources.destination), (strings(&["a*", "\"b\""]), "/d/".to_owned()));

    let Instruction::Copy(copy) = only("COPY <<a.txt <<-'b.txt' c /d/\n$x\na.txt\n\ty\nb.txt") else {
        panic!("it is a COPY");
    };
    let inline =
        |name: &str, content: &str, expand| Inline { name: name.into(), content: content.into(), expand };
    assert_eq!(copy.sources.inlines, [inline("a.txt", "$x\n", true), inline("b.txt", "y\n", false)]);
    assert_eq!(copy.sources.paths, ["c"]);

    let Instruction::Add(add) =
        only("ADD --checksum=sha256:0 --unpack=false --keep-git-dir [\"a b\", \"/d\"]")
    else {
        panic!("it is an ADD");
    };
    assert_eq!(
        (add.checksum.as_deref(), add.unpack, add.keep_git_dir),
        (Some("sha256:0"), Some(false), Some(true))
    );
    assert_eq!(add.sources.paths, ["a b"]);
}

#[test]
fn refuses_in_words_that_people_search_for() {
    for (source, expected) in [
        ("FROM", "on line 1: FROM requires either one or three arguments"),
        ("FROM a AS", "on line 1: FROM requires either one or three arguments"),
        (
            "FROM a AS 1x",
            "on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        ("FROM a\nNOTHING x", "on line 2: unknown instruction: NOTHING"),
        ("FROM a\n\nCOPPY x y", "on line 3: unknown instruction: COPPY (did you mean COPY?)"),
        ("RUN x", "on line 1: no build stage in current context"),
        ("ARG x", "on line 1: no build stage in current context"),
        ("FROM a\nRUN", "on line 2: RUN requires at least one argument"),
        ("FROM a\nRUN --mout=x y", "on line 2: unknown flag: --mout (did you mean mount?)"),
        ("FROM a\nRUN --network=hots y", "on line 2: invalid network mode \"hots\" (did you mean host?)"),
        (
            "FROM a\nCOPY x",
            "on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM a\nCOPY x <<E\nE", "on line 2: COPY cannot accept a heredoc as a destination"),
        ("FROM a\nENV x", "on line 2: ENV must have two arguments"),
        (
            "FROM a\nCMD [\"a\", 1]",
            "on line 2: when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("FROM a\nSHELL x", "on line 2: SHELL requires the arguments to be in JSON form"),
        ("FROM a\nSHELL []", "on line 2: SHELL requires at least one argument"),
        ("FROM a\nVOLUME [\" \"]", "on line 2: VOLUME specified can not be an empty string"),
        ("FROM a\nUSER", "on line 2: USER requires exactly one argument"),
        ("FROM a\nONBUILD", "on line 2: ONBUILD requires at least one argument"),
        ("FROM a\nONBUILD ONBUILD RUN x", "on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nONBUILD FROM x", "on line 2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD RUNN x", "on line 2: unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM a\nARG =x", "on line 2: ARG names can not be blank"),
        (
            "FROM a\nRUN --mount=from=$x,target=/y z",
            "on line 2: 'from' doesn't support variable expansion, define alias stage instead",
        ),
    ] {
        assert_eq!(message(source), format!("dockerfile parse error {expected}"), "{source}");
    }
    assert_eq!(parse(b"FROM a\nRUN \xff").expect_err("not UTF-8").lines, LineRange { first: 2, last: 2 });
}

#[test]
fn reads_triggers() {
    assert_eq!(parse_trigger("RUN x").expect("well formed").value.name(), "RUN");
    assert_eq!(parse_trigger("RUN <<E\nx\nE").expect("well formed").lines.last, 3);
    assert_eq!(parse_trigger("FROM x").expect_err("refused").kind, SyntaxError::Trigger("FROM".into()));
    assert_eq!(parse_trigger("RUN x\nRUN y").expect_err("two").kind, SyntaxError::Several(2));
}
