// Yield [word, 1] for every word of every text.
//
// /// mr
// handler_type = "mapper"
// required_capability = "none"
// ///

export function* handle(args, ctx) {
  for (const [name, text] of args)
    for (const word of text.toLowerCase().match(/\p{Letter}+/gu) ?? []) yield [word, 1];
}
