/** A name, an IPv4 address or an IPv6 address in brackets, and maybe a port: RFC 3986, section 3.2.2, without what nobody has. */
const HOST = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::(?<port>[0-9]{1,5}))?$/;

/**
 * Where the control plane is for whoever sent a request with this Host header: that goes into a script, which is why nothing but
 * names, addresses and ports is taken. Without TLS a proxy in front of us that speaks it must be told of in HARRIER_PUBLIC_URL.
 * @returns undefined when the header is missing, or is none
 */
export function urlFromHost(host: string | undefined, isEncrypted: boolean): string | undefined {
  const match = HOST.exec(host ?? '');
  if (match === null || Number(match.groups?.port ?? 0) > 65_535) return undefined;
  return `${isEncrypted ? 'https' : 'http'}://${host}`;
}

/** An address that an operator gives: `http(s)://HOST[:PORT][/PATH]`. @returns it without a slash at its end; undefined when it is none */
export function parsePublicUrl(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || urlFromHost(url.host, true) === undefined)
    return undefined;
  const path = url.pathname.replace(/\/+$/, '');
  const isPlain = /^(\/[A-Za-z0-9._~%-]+)*$/.test(path);
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '' || !isPlain) return undefined;
  return `${url.protocol}//${url.host}${path}`;
}
