import { type DescMethod, getOption } from '@bufbuild/protobuf';
import { http } from '@harrier/shared/gen/google/api/annotations';
import type { HttpRule } from '@harrier/shared/gen/google/api/http';
import { compareSpecificity, matchPath, type PathTemplate, parsePathTemplate } from './path-template.ts';

/** One HTTP method and path of one RPC, as its annotation says. */
export interface RestRoute {
  httpMethod: string;
  template: PathTemplate;
  method: DescMethod;
  /** Empty: no body. `*`: the request itself. Else the name of a field of the request. */
  body: string;
  /** Empty: the response itself. Else the name of a field of the response. */
  responseBody: string;
}

export type RouteMatch<Route extends RestRoute> =
  | { route: Route; pathValues: Map<string, string> }
  /** The path exists, not with this HTTP method. */
  | { allowed: string[] };

export interface RouteTable<Route extends RestRoute> {
  find(httpMethod: string, path: string): RouteMatch<Route> | undefined;
}

/** The routes that the annotation of a method declares, additional bindings included. */
export function routesOf(method: DescMethod): RestRoute[] {
  const rule = getOption(method, http);
  return [rule, ...rule.additionalBindings].flatMap((binding) => {
    const pattern = patternOf(binding);
    if (pattern === undefined) return [];
    const template = parsePathTemplate(pattern.path);
    return [
      { httpMethod: pattern.httpMethod, template, method, body: binding.body, responseBody: binding.responseBody },
    ];
  });
}

function patternOf(rule: HttpRule): { httpMethod: string; path: string } | undefined {
  switch (rule.pattern.case) {
    case 'get':
    case 'put':
    case 'post':
    case 'delete':
    case 'patch':
      return { httpMethod: rule.pattern.case.toUpperCase(), path: rule.pattern.value };
    case 'custom':
      return { httpMethod: rule.pattern.value.kind, path: rule.pattern.value.path };
    case undefined:
      return undefined;
  }
}

/** Of several routes that match a path the most specific one with the asked HTTP method is taken. */
export function createRouteTable<Route extends RestRoute>(routes: readonly Route[]): RouteTable<Route> {
  const ordered = [...routes].sort((a, b) => compareSpecificity(a.template, b.template));
  // Most paths start with a literal, so its routes are the only ones to look at.
  const byFirstSegment = Map.groupBy(ordered, ({ template }) => {
    const first = template[0];
    return first?.kind === 'literal' ? first.text : undefined;
  });

  return {
    find(httpMethod, path) {
      const segments = path.slice(1).split('/');
      const allowed = new Set<string>();
      for (const route of byFirstSegment.get(segments[0]) ?? []) {
        const pathValues = matchPath(route.template, segments);
        if (pathValues === undefined) continue;
        if (route.httpMethod === httpMethod) return { route, pathValues };
        allowed.add(route.httpMethod);
      }
      return allowed.size === 0 ? undefined : { allowed: [...allowed] };
    },
  };
}
