//! The laws every optimiser keeps, on input of all kinds; what each makes of what is in `fixtures/rewrite`.

use proptest::prelude::*;

use super::*;

fn small(optimiser: Optimiser, body: &str) -> Result<String, Refusal> {
    shrink(optimiser, body.as_bytes()).map(|bytes| String::from_utf8(bytes).expect("text stays text"))
}

/// Pieces that mean something to the tokenizers, in any order.
const SOUP: &[&str] = &[
    "a",
    "b2",
    "if",
    "return",
    "of",
    "in",
    " ",
    "\n",
    "\t",
    "\r\n",
    "/",
    "//",
    "/*",
    "*/",
    "/* x */",
    "/*! k */",
    "// y\n",
    "'",
    "\"",
    "`",
    "${",
    "}",
    "{",
    "(",
    ")",
    "[",
    "]",
    ";",
    ":",
    ",",
    ".",
    "..",
    "...",
    "?",
    "?.",
    "+",
    "++",
    "-",
    "--",
    "-->",
    "<!--",
    "<",
    ">",
    "=",
    "=>",
    "!",
    "&&",
    "\\",
    "\\u0061",
    "#",
    "#a",
    "@",
    "@media",
    "@charset",
    "--x",
    "url(",
    "1",
    "1.",
    ".5",
    "1e+5",
    "0x1",
    "true",
    "null",
    "\"k\"",
    "<svg>",
    "</svg>",
    "<g a='1'>",
    "</g>",
    "<text>",
    "</text>",
    "<!-- c -->",
    "é",
    "\u{2028}",
    "\u{a0}",
    "\0",
    "\u{feff}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn what_is_made_of_anything_is_settled_and_proven(
        pieces in proptest::collection::vec(proptest::sample::select(SOUP), 0..24),
        optimiser in proptest::sample::select(&Optimiser::ALL[..]),
    ) {
        let body = pieces.concat();
        match small(optimiser, &body) {
            Ok(once) => {
                prop_assert!(once.len() <= body.len() + 4, "{:?} {:?}", body, once);
                prop_assert_eq!(small(optimiser, &once), Ok(once), "{:?}", body);
            }
            Err(reason) => prop_assert_ne!(reason, Refusal::Unproven, "{:?}", body),
        }
    }

    #[test]
    fn any_bytes_are_answered(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        optimiser in proptest::sample::select(&Optimiser::ALL[..]),
    ) {
        let _ = shrink(optimiser, &body);
    }
}

#[test]
fn depth_and_length_cost_no_stack() {
    for (optimiser, piece, tail) in [
        (Optimiser::JsWs, "(", ")"),
        (Optimiser::JsWs, "`${", "}`"),
        (Optimiser::CssWs, "a{", "}"),
        (Optimiser::SvgWs, "<g>", "</g>"),
    ] {
        let deep = [piece.repeat(200_000), tail.repeat(200_000)].concat();
        let answer = small(optimiser, &deep);
        assert!(answer.is_ok() || optimiser == Optimiser::JsWs, "{piece}: {:?}", answer.map(|small| small.len()));
        assert!(small(optimiser, &piece.repeat(200_000)).is_err(), "{piece} alone");
    }
    assert_eq!(small(Optimiser::JsonWs, &"[".repeat(200_000)), Err(Refusal::Malformed));
    for optimiser in Optimiser::ALL {
        assert!(small(optimiser, &"<".repeat(1_000_000)).is_err() || optimiser != Optimiser::JsonWs);
    }
}

#[test]
fn line_ends_stay_where_a_statement_may_end() {
    for (body, expected) in [
        ("a\nb", "a\nb"),
        ("a ;\n b", "a;b"),
        ("return\nx", "return\nx"),
        ("x\n++\ny", "x\n++\ny"),
        ("f()\n(g)", "f()\n(g)"),
        ("a = b\n/c/.d", "a=b\n/c/.d"),
        ("a\n  .b()\n  .c()", "a.b().c()"),
        ("1\n.x", "1 .x"),
        ("class A { x = 1\n *g(){} }", "class A{x=1\n*g(){}}"),
        ("async\n() => 1", "async\n()=>1"),
        ("a\n=> 1", "a\n=>1"),
        ("if (a) {\n b\n}\nelse c", "if(a){b}\nelse c"),
        ("a + +b - -c", "a+ +b- -c"),
        ("a = -b", "a=-b"),
        ("x-- > 0", "x-- >0"),
        ("'a' in b", "'a'in b"),
        ("typeof /a b/ . c", "typeof/a b/.c"),
        ("export default /[^ a-z]/i ;", "export default/[^ a-z]/i;"),
        ("a . default / b / c", "a.default/b/c"),
        ("class A extends /a  b/ . c {}", "class A extends/a  b/.c{}"),
        ("1. in x", "1. in x"),
        (". 1a", ". 1a"),
        ("f( function () { /* a\n b */ } )", "f(function(){/* a\n b */})"),
        ("{ // x\n // y\n }", "{// x\n// y\n}"),
        ("{ /* x */ a }", "{a}"),
        ("a / b / c", "a/b/c"),
        ("a /* / */ / /b/", "a/ /b/"),
        ("`a ${ b + `c ${ d } ` } e`", "`a ${b+`c ${d} `} e`"),
        ("/*! l */ a // b\n// @license x\nc", "/*! l */a// @license x\nc"),
        ("a // b\n//# sourceURL=a.js\n", "a\n//# sourceURL=a.js\n"),
        ("a ? .5 : 1", "a? .5:1"),
        ("#!/bin/node\na", "#!/bin/node\na"),
    ] {
        assert_eq!(small(Optimiser::JsWs, body).as_deref(), Ok(expected), "{body}");
    }
}

#[test]
fn what_tokens_do_not_decide_is_refused() {
    for (body, reason) in [
        ("{} /a/.b", Refusal::Ambiguous),
        ("x\n--> y", Refusal::Ambiguous),
        ("a <!-- b", Refusal::Ambiguous),
        ("if (a) /b/.c()", Refusal::Ambiguous),
        ("for (a of /b/) c", Refusal::Ambiguous),
        ("while (a) {\nbreak\n/b  c/.d() }", Refusal::Ambiguous),
        ("while (a) {\ncontinue\n/b  c/.d() }", Refusal::Ambiguous),
        ("a: while (b) {\nbreak a\n/b  c/.d() }", Refusal::Ambiguous),
        ("debugger\n/b  c/.d()", Refusal::Ambiguous),
        ("import 'a'\n/b  c/.d()", Refusal::Ambiguous),
        ("export * from \"a\"\n/b  c/.d()", Refusal::Ambiguous),
        ("a\u{2028}b", Refusal::Ambiguous),
        ("a \u{a0} b", Refusal::Ambiguous),
        ("a.b(Function.prototype.toString)", Refusal::Introspective),
        ("document.currentScript . textContent", Refusal::Introspective),
        ("document . currentScript . text", Refusal::Introspective),
        ("a ( Function . prototype . toString )", Refusal::Introspective),
        ("a // b\n//# sourceMappingURL=a.map\n", Refusal::SourceMap),
        ("'a", Refusal::Malformed),
        ("`a${b`", Refusal::Malformed),
        ("/* a", Refusal::Malformed),
        ("(]", Refusal::Malformed),
        ("a = /b\n/", Refusal::Malformed),
    ] {
        assert_eq!(small(Optimiser::JsWs, body), Err(reason), "{body}");
    }
}

#[test]
fn style_sheets_keep_the_spaces_they_look_at() {
    for (body, expected) in [
        ("a  b , c > d { color : red ; }", "a b,c > d{color:red;}"),
        ("a :hover{}\na:hover{}", "a :hover{}a:hover{}"),
        ("a { b :hover { x : y } }", "a{b :hover{x:y}}"),
        ("a{width:calc( 1px  +  2px )}", "a{width:calc( 1px + 2px )}"),
        ("@media screen and (a) { b { c : d } }", "@media screen and (a){b{c:d}}"),
        (":root { --x :  a  { b } ; }", ":root{--x:  a  { b } ;}"),
        ("a/**/b{}", "a/**/b{}"),
        ("a /* x */ b{}", "a b{}"),
        ("a{b:c/* x */}", "a{b:c}"),
        ("/*! l */\na{}", "/*! l */a{}"),
        ("a{b:\"x  y\" 'z'}", "a{b:\"x  y\" 'z'}"),
        ("a{b:url( x y.png )}", "refused"),
        ("a{b:url(  x.png  ) c}", "a{b:url(  x.png  ) c}"),
        (".\\31  a{}", ".\\31  a{}"),
        ("@charset \"utf-8\"; a{}", "@charset \"utf-8\";a{}"),
        (" @charset \"utf-8\";", "refused"),
        ("a{b:\"x\ny\"}", "refused"),
        ("a{", "refused"),
        ("a)", "refused"),
    ] {
        let expected = if expected == "refused" { Err(Refusal::Malformed) } else { Ok(expected.to_owned()) };
        assert_eq!(small(Optimiser::CssWs, body), expected, "{body}");
    }
}

#[test]
fn a_source_map_keeps_its_lines() {
    let sheet = "a{}\n/*# sourceMappingURL=a.map */";
    assert_eq!(small(Optimiser::CssWs, sheet), Err(Refusal::SourceMap));
    assert_eq!(small(Optimiser::JsonWs, "[ \"sourceMappingURL=a\" ]").as_deref(), Ok("[\"sourceMappingURL=a\"]"));
}

#[test]
fn json_keeps_its_numbers_and_strings() {
    for (body, expected) in [
        (
            " { \"a b\" : [ 1.50 , 1e3 ,null ] , \"c\\\"  \":\"\\u0020 \" }\n",
            Ok("{\"a b\":[1.50,1e3,null],\"c\\\"  \":\"\\u0020 \"}"),
        ),
        ("{\"a\":1, \"\\u0061\":2}", Err(Refusal::Active)),
        ("\u{feff}[ ]", Err(Refusal::Malformed)),
        ("[1,]", Err(Refusal::Malformed)),
        ("[] []", Err(Refusal::Malformed)),
        ("", Err(Refusal::Malformed)),
    ] {
        assert_eq!(small(Optimiser::JsonWs, body), expected.map(str::to_owned), "{body}");
    }
}

#[test]
fn pictures_keep_what_is_drawn() {
    for (body, expected) in [
        ("<svg  a='1  2'\n b = \"x\" >\n <g />\n <!-- c --></svg>\n", Ok("<svg a='1  2' b=\"x\"><g/></svg>")),
        (
            "<svg><text> a <tspan> b</tspan> <!-- c --> </text> </svg>",
            Ok("<svg><text> a <tspan> b</tspan> <!-- c --> </text></svg>"),
        ),
        ("<?xml version='1.0'?>\n<svg/>", Ok("<?xml version='1.0'?><svg/>")),
        ("<svg><script/></svg>", Err(Refusal::Active)),
        ("<svg><s:script/></svg>", Err(Refusal::Active)),
        ("<svg onload='a()'/>", Err(Refusal::Active)),
        ("<svg xml:space='preserve'/>", Err(Refusal::Active)),
        ("<!DOCTYPE svg [<!ENTITY a 'b'>]><svg/>", Err(Refusal::Active)),
        ("<svg><g></svg>", Err(Refusal::Malformed)),
        ("<svg/><svg/>", Err(Refusal::Malformed)),
        ("<svg a=1/>", Err(Refusal::Malformed)),
        ("<svg", Err(Refusal::Malformed)),
    ] {
        assert_eq!(small(Optimiser::SvgWs, body), expected.map(str::to_owned), "{body}");
    }
}
