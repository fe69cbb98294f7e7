{{- define "harrier.name" -}}
{{- if contains "harrier" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-harrier" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of one component: dict "root" . "component" "agent" */}}
{{- define "harrier.selector" -}}
app.kubernetes.io/name: harrier
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "harrier.labels" -}}
{{ include "harrier.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* dict "root" . "image" .Values.images.agent */}}
{{- define "harrier.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{- define "harrier.secret" -}}
{{- .Values.secrets.existingSecret | default (include "harrier.name" .) -}}
{{- end -}}

{{- define "harrier.scheme" -}}
{{- if .Values.controlPlane.tlsSecret -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{- define "harrier.serverUrl" -}}
{{ include "harrier.scheme" . }}://{{ include "harrier.name" . }}.{{ .Release.Namespace }}.svc:{{ .Values.controlPlane.service.port }}
{{- end -}}

{{/* Further variables: a map of names to texts. */}}
{{- define "harrier.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* No privilege at all, as deploy/docker promises. */}}
{{- define "harrier.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities: { drop: [ALL] }
{{- end -}}
